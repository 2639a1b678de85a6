"""
Who sends: messages of every lane and policy, in bursts; who cancels, and brings its own loop.

A message is drawn before the run.  Its sender hands it in, waits for its outcome, and may
want it ended meanwhile; a message with an idempotency key is handed in again by whoever comes
after a sender that died, and must not become two turns.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import (
    CoordinationError,
    DeadlockError,
    DrainingError,
    HoldfastError,
    LeaseLostError,
    QueueFullError,
    RejectedError,
    StoreError,
    UnknownChannelError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from random import Random

    from holdfast._runtime.receipts import Outcome
    from holdfast._runtime.runtime import Holdfast
    from holdfast.testing._sim_handing import Letting

__all__ = ["KEYS", "Message", "Sender", "drawn"]

KEYS: Final = ("agent:main:main", "agent:main:ops", "agent:main:direct:ann")
LANES: Final[Mapping[str, int]] = {
    "user": 8, "mail": 3, "cron": 3, "heartbeat": 3, "subagent": 2,
}  # fmt: skip
POLICIES: Final[Mapping[str, int]] = {
    "enqueue": 5, "collect": 3, "steer": 3, "interrupt": 2, "rollback": 1, "reject": 1,
}  # fmt: skip
AGAIN_S: Final = 0.2  #: After a store that did not answer.


@dataclass(frozen=True, slots=True)
class Crowd:
    """What kind of messages come together in one run."""

    often: int
    lanes: Mapping[str, int] = field(default_factory=lambda: LANES)
    policies: Mapping[str, int] = field(default_factory=lambda: POLICIES)
    most: int = 9
    least: int = 2
    keys_most: int = len(KEYS)
    gaps_s: tuple[float, ...] = (0.0, 0.0, 0.0, 0.01, 0.1, 0.6)
    beats: int = 0  #: So many heartbeats wait before anybody else comes.
    cancelled: float = 0.15
    own: float = 0.08  #: How many are answered by their senders, …
    asked: float = 0.04  #: … and behind how many somebody asks for the session.


CROWDS: Final = (
    Crowd(80),
    Crowd(  # People against heartbeats.
        12, {"user": 3, "heartbeat": 1}, {"enqueue": 9, "collect": 1}, most=10, least=8,
        keys_most=1, gaps_s=(0.1, 0.3, 0.4), own=0.0, asked=0.0, cancelled=0.04, beats=4,
    ),
    # Everybody wants the session at once.
    Crowd(8, keys_most=2, gaps_s=(0.0, 0.01, 0.1), own=0.35, asked=0.5),
)  # fmt: skip


@dataclass(slots=True)
class Message:
    """One, and what became of handing it in."""

    text: str
    at_s: float  #: When it is sent.
    key: str
    lane: str
    policy: str
    repeats: bool  #: It has an idempotency key: it is sent until somebody knows of it.
    own: bool = False  #: Answered by its sender (`hf.turn`).
    sender: str | None = None
    target: str | None = None  #: Its reply is owed to a channel.
    cancelled_after_s: float | None = None  #: Somebody wants its end, …
    rolled_back: bool = False  #: … and its question gone.
    resets: bool = False  #: Its key names a new session right after it was accepted.
    asked_after_s: float | None = None  #: Somebody asks for its session.
    thinks_s: float = 0.02  #: Of one that its sender answers.
    refused: str | None = None  #: Why it was not accepted.
    turn_id: str | None = None  #: As its sender knows it.
    sent: bool = False  #: Handed in at least once.
    heard: Outcome | None = None  #: The outcome that its sender saw.

    @property
    def over(self) -> bool:
        """Nobody needs to do anything about it any more."""
        return self.refused is not None or self.heard is not None


def drawn(lots: Random) -> list[Message]:
    """The messages of one run."""
    crowd = lots.choices(CROWDS, [each.often for each in CROWDS])[0]
    keys = KEYS[: lots.randint(1, crowd.keys_most)]
    lanes, policies = crowd.lanes, crowd.policies
    found: list[Message] = []
    at_s = 0.0
    for number in range(lots.randint(crowd.least, crowd.most)):
        early = number < crowd.beats
        at_s += 0.0 if early else lots.choice(crowd.gaps_s)
        found.append(
            Message(
                f"m{number}", at_s, lots.choice(keys),
                "heartbeat" if early else lots.choices(list(lanes), list(lanes.values()))[0],
                lots.choices(list(policies), list(policies.values()))[0],
                repeats=lots.random() < 0.7,
                own=lots.random() < crowd.own,
                cancelled_after_s=(
                    lots.choice((0.0, 0.01, 0.1, 0.5))
                    if lots.random() < crowd.cancelled else None
                ),
                rolled_back=lots.random() < 0.4,
                sender=lots.choice((None, "ann", "ann", "bob")),
                target=lots.choice((None, None, "sim:ann", "sim:bob")),
                resets=lots.random() < 0.06,
                asked_after_s=(
                    lots.choice((0.0, 0.05, 0.3)) if lots.random() < crowd.asked else None
                ),
                thinks_s=lots.choice((0.02, 0.02, 0.3, 1.5)),
            )
        )  # fmt: skip
    return found


class Sender:
    """Hands messages in, in one process.  Loop-bound."""

    def __init__(self, hf: Holdfast, now_s: Any, letting: Letting) -> None:
        self._hf, self._now_s, self._letting = hf, now_s, letting

    async def send(self, message: Message) -> None:
        """See that *message* is accepted, and hear of its outcome; or that it is refused."""
        await asyncio.sleep(max(message.at_s - self._now_s(), 0.0))
        if message.own:
            await self._answer(message)
            return
        if message.sent and not message.repeats and message.turn_id is None:
            message.refused = "unknown"  # Whoever sent it died; it may have been accepted.
            return
        try:
            receipt = await self._hand_in(message)
        except (RejectedError, QueueFullError, DeadlockError, UnknownChannelError) as error:
            message.refused = error.code
            return
        if receipt is None:
            return
        message.turn_id = receipt.turn_id
        if message.resets:
            message.resets = False
            await self._until_served(lambda: self._hf.store.control.reset(message.key))
        if message.cancelled_after_s is not None:
            await asyncio.sleep(message.cancelled_after_s)
            await self._until_served(
                lambda: self._hf.cancel(receipt.turn_id, rollback=message.rolled_back)
            )
        if message.asked_after_s is not None:
            await asyncio.sleep(message.asked_after_s)
            await self._letting.ask(self._hf, message.key)
        while message.heard is None:
            try:
                message.heard = await receipt.outcome()
            except StoreError:
                await asyncio.sleep(AGAIN_S)

    async def _hand_in(self, message: Message) -> Any:
        """Its receipt; None: nobody can tell whether it was accepted."""
        while True:
            message.sent = True
            try:
                if message.turn_id is not None:
                    return await self._hf.receipt(message.turn_id)
                return await self._hf.submit(
                    message.key, message.text, lane=message.lane, policy=message.policy,
                    idempotency_key=message.text if message.repeats else None,
                    sender=message.sender, target=message.target,
                )  # fmt: skip
            except StoreError:
                if not message.repeats and message.turn_id is None:
                    message.refused = "unknown"
                    return None
                await asyncio.sleep(AGAIN_S)

    async def _until_served(self, call: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await call()
            except StoreError:
                await asyncio.sleep(AGAIN_S)
            except RejectedError:  # It has committed: too late to roll back.
                return
            else:
                return

    async def _answer(self, message: Message) -> None:
        """Bring its own loop.  What it comes to, its row says."""
        if message.sent:
            message.refused = "unknown"
            return
        message.sent = True
        try:
            async with self._hf.turn(message.key, message.text, lane=message.lane) as turn:
                message.turn_id = turn.turn_id
                await asyncio.sleep(message.thinks_s)
                text = f"reply to {message.text}"
                await turn.reply(text)
                self._letting.told[turn.turn_id] = text
        except DrainingError:
            raise
        except (LeaseLostError, CoordinationError, StoreError) as error:
            message.refused = f"own: {error.code}"
        except HoldfastError as error:
            message.refused = error.code
        else:
            message.refused = "own: answered"

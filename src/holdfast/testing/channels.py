"""
The suite that every channel must pass: what the deliverer relies on, and nothing else.

Each clause is an async function of a *rig*: an async context manager that is given how the
other side behaves and yields a `Bench`, which is the channel and a way to see what arrived.

    @pytest.mark.parametrize("clause", channels.CLAUSES, ids=channels.name)
    async def test_my_channel(clause):
        await clause(my_rig)

The other side is, by the word that the rig is given:

    good       takes everything
    refuses    says that it will never take this
    busy       says that it cannot take anything now
    down       is not there at all
    silent     takes a part, and never answers

A channel's `timeout_s` should be short in the rig: a clause waits for it.  A clause raises
AssertionError when the channel breaks its promise.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast._core.delivery import AMBIGUOUS, PERMANENT, TRANSIENT
from holdfast._stamps import uuid7
from holdfast.errors import DeliveryError
from holdfast.types import Parcel, SessionId, TurnId

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from holdfast.ports import Channel

    Rig = Callable[[str], AbstractAsyncContextManager["Bench"]]

__all__ = ["CLAUSES", "Bench", "name", "parcel"]

CLAUSES: Final[list[Callable[[Rig], Awaitable[None]]]] = []
BEYOND_S: Final = 5.0  #: How late a channel may be with its own timeout on a busy machine.
AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class Bench:
    channel: Channel
    #: Keys of the parts that arrived, each as often as it was acted on, in order.
    arrived: Callable[[], list[str]]


def name(clause: Any) -> str:
    """A clause's name, for test ids."""
    return str(clause.__name__)


def parcel(text: str = "hello", *, address: str = "ann", key: str | None = None) -> Parcel:
    """A part to deliver."""
    turn = uuid7()
    key = key or f"{turn}.1"
    told = {
        "type": "reply",
        "turn_id": turn,
        "to": address,
        "part": 1,
        "parts": 1,
        "text": text,
    }
    body = msgspec.json.encode(told)
    return Parcel(
        key, "reply", TurnId(turn), SessionId(uuid7()), "agent:main:main", address, 1, 1, text,
        body, hashlib.sha256(body).hexdigest(), 1,
    )  # fmt: skip


def clause(function: Any) -> Any:
    """Put *function* into the suite."""
    CLAUSES.append(function)
    return function


async def _refused(bench: Bench, what: Parcel) -> DeliveryError:
    try:
        async with asyncio.timeout(bench.channel.timeout_s + BEYOND_S):
            await bench.channel.deliver(what)
    except DeliveryError as error:
        return error
    raise AssertionError("it was not refused")


@clause
async def it_says_what_it_is(rig: Rig) -> None:
    async with rig("good") as bench:
        channel = bench.channel
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", channel.name), channel.name
        assert channel.part_chars_max > 0
        assert channel.timeout_s > 0
        assert channel.ambiguous in {"resend", "give_up"}
        assert channel.reconciles in {True, False}


@clause
async def what_is_delivered_has_arrived(rig: Rig) -> None:
    async with rig("good") as bench:
        for text in (
            "hello",
            "ö 👩‍👩‍👧 \u2028 \n <b>&amp;</b>",
            "x" * bench.channel.part_chars_max,
        ):
            what = parcel(text)
            said = await bench.channel.deliver(what)
            assert said is None or isinstance(said, str)
            assert bench.arrived()[-1] == what.key


@clause
async def the_same_part_again_is_no_failure(rig: Rig) -> None:
    async with rig("good") as bench:
        what = parcel()
        await bench.channel.deliver(what)
        await bench.channel.deliver(what)
        if bench.channel.ambiguous == "resend":
            assert bench.arrived() == [what.key], "the other side acts on a key once"


@clause
async def where_nobody_is_nothing_arrives_and_it_may_be_tried_again(rig: Rig) -> None:
    async with rig("down") as bench:
        error = await _refused(bench, parcel())
        assert (error.landed, error.permanent) == (False, False)
        assert error.reason in TRANSIENT, error.reason
        assert bench.arrived() == []


@clause
async def who_never_takes_it_says_so_for_good(rig: Rig) -> None:
    async with rig("refuses") as bench:
        error = await _refused(bench, parcel())
        assert (error.landed, error.permanent) == (False, True)
        assert error.reason in PERMANENT, error.reason
        assert bench.arrived() == []


@clause
async def who_is_busy_may_be_tried_again(rig: Rig) -> None:
    async with rig("busy") as bench:
        error = await _refused(bench, parcel())
        assert (error.landed, error.permanent) == (False, False)
        assert error.reason in TRANSIENT, error.reason
        assert error.retry_after_s is None or error.retry_after_s >= 0


@clause
async def without_an_answer_nobody_knows_whether_it_arrived(rig: Rig) -> None:
    async with rig("silent") as bench:
        error = await _refused(bench, parcel())
        assert error.landed is None, "it may have arrived"
        assert not error.permanent
        assert error.reason in AMBIGUOUS, error.reason


@clause
async def an_attempt_that_is_cancelled_ends_at_once(rig: Rig) -> None:
    async with rig("silent") as bench:
        attempt = asyncio.ensure_future(bench.channel.deliver(parcel()))
        while not (bench.arrived() or attempt.done()):  # noqa: ASYNC110  No event of ours.
            await asyncio.sleep(0.01)
        attempt.cancel()
        with suppress(asyncio.CancelledError, DeliveryError):
            async with asyncio.timeout(BEYOND_S):
                await attempt


@clause
async def many_are_delivered_at_once(rig: Rig) -> None:
    async with rig("good") as bench:
        parcels = [parcel(address=f"peer-{number}") for number in range(AT_ONCE)]
        await asyncio.gather(*(bench.channel.deliver(each) for each in parcels))
        assert sorted(bench.arrived()) == sorted(each.key for each in parcels)


@clause
async def it_tells_the_truth_of_what_arrived_or_that_it_cannot(rig: Rig) -> None:
    async with rig("good") as bench:
        sent, other = parcel(), parcel()
        await bench.channel.deliver(sent)
        said = [await bench.channel.reconcile(each) for each in (sent, other)]
        if not bench.channel.reconciles:
            assert said == ["unknown", "unknown"]
            return
        assert said[0] in {"delivered", "unknown"}
        assert said[1] in {"not_delivered", "unknown"}


@clause
async def it_can_be_closed_twice(rig: Rig) -> None:
    async with rig("good") as bench:
        await bench.channel.deliver(parcel())
        await bench.channel.aclose()
        await bench.channel.aclose()

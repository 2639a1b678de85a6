"""
The deliverer: hands what is owed to channels, one target at a time each, many at once.

    take (the row says so, durably) ─▶ an earlier attempt's end unknown? ask the channel
        ─▶ still ours? ─▶ deliver ─▶ what it came to, by `_core.delivery`, into the row

It decides nothing.  It is woken by whoever commits, by a due time, and by the poll behind
both.  A channel that hangs, fails or ignores its cancellation costs its own target only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from holdfast import _points
from holdfast._core import delivery
from holdfast._core.delivery import SENT_AGAIN, Failure, Next, State
from holdfast.errors import DeliveryError, HoldfastError, LeaseLostError, StoreError
from holdfast.types import Parcel

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from holdfast.ports import Channel, Store
    from holdfast.types import Delivery

__all__ = ["Deliverer"]

T = TypeVar("T")

AT_ONCE: Final = 16  #: Targets that are served at the same time.
POLL_S: Final = 1.0  #: The truth behind the hints, while anything is owed.
POLL_IDLE_S: Final = 5.0
EXPIRE_EVERY_S: Final = 60.0  #: In a process that has no channels.
BEYOND_S: Final = 1.0  #: A channel has its own timeout; this is for one that forgets it.
SETTLE_AGAIN_S: Final = 1.0
GIVE_BACK_S: Final = 2.0  #: For an attempt that is cut short to say so.

_log = logging.getLogger("holdfast.delivery")


class Arrived(NamedTuple):
    """The channel has it."""

    remote_id: str | None  #: What it is called there.


Came: TypeAlias = Arrived | Failure | Next


class Deliverer:
    """
    Loop-bound.

    Args:
        channels: whoever made them closes them.
    """

    def __init__(self, store: Store, channels: Iterable[Channel]) -> None:
        self._store = store
        self.channels = {each.name: each for each in channels}
        self._names = tuple(self.channels)
        self._wake = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._one_look = asyncio.Lock()
        self._stopping = self._doubt = False

    def __len__(self) -> int:
        """Attempts under way."""
        return len(self._running)

    def start(self) -> None:
        self._looking = asyncio.create_task(self._look_on(), name="holdfast deliverer")

    def wake(self) -> None:
        """Something may be owed, or due.  Nothing to a process without channels."""
        if self._names:
            self._wake.set()

    def fenced(self) -> None:
        """This process was buried: what it was sending is somebody else's."""
        for task in self._running.values():
            task.cancel()

    async def stop(self, *, finish_s: float) -> None:
        """
        Deliver what is due within *finish_s* seconds, then take nothing more.  An attempt
        that is cut short is left behind as one of which nobody knows whether it arrived.
        Called again while it stops: what is under way is cut short at once.
        """
        until_s = time.monotonic() + finish_s
        self._stopping = self._stopping or not self._names  # Nothing of its own to send.
        while not self._stopping and (left_s := until_s - time.monotonic()) > 0:
            with suppress(HoldfastError):
                await self._look()
            if not self._running:
                break
            await asyncio.wait(
                self._running.values(), timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
        self._stopping = True
        async with self._one_look:  # Not in the middle of one: what it takes is sent.
            if self._looking is not None:
                self._looking.cancel()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2 * GIVE_BACK_S)

    # ----------------------------------------------------------------------------- looking

    async def _look_on(self) -> None:
        while True:
            self._wake.clear()
            try:
                wait_s = await self._look()
            except HoldfastError as error:
                _log.warning("the store did not serve deliveries: %s", error)
                wait_s, self._doubt = POLL_S, True
            except Exception:  # noqa: BLE001  A deliverer that looks no more is silent.
                _log.exception("a look at what is owed failed")
                wait_s, self._doubt = POLL_S, True
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _look(self) -> float:
        """Start what may be attempted now.  Returns how long nothing else may be, at most."""
        async with self._one_look:
            control = self._store.control
            if not self._names:
                while not self._stopping and await control.expire_deliveries():
                    pass
                return EXPIRE_EVERY_S
            if self._doubt:
                await self._give_back_doubtful()
            while (due_ms := await control.due_ms(self._names)) == 0:
                if self._stopping or len(self._running) >= AT_ONCE:
                    return POLL_S
                row = await self._take()
                if row is None:  # Somebody else was faster, or we are buried.
                    return POLL_S
                task = asyncio.create_task(
                    self._attempt(row), name=f"delivery {row.delivery_id}"
                )
                self._running[row.delivery_id] = task
            if due_ms is None:
                return POLL_S if self._running else POLL_IDLE_S
            return min(POLL_S, max(due_ms, 1) / 1000)

    async def _take(self) -> Delivery | None:
        me = self._store.owner.owner_id
        try:
            return await self._store.control.next_delivery(me, self._names)
        except StoreError:
            self._doubt = True  # It may have been taken all the same.
            raise

    async def _give_back_doubtful(self) -> None:
        """What our rows say that we send, and nobody here does."""
        control, me = self._store.control, self._store.owner.owner_id
        for row in await control.deliveries(state=State.ATTEMPTING.value):
            if row.owner_id == me and row.delivery_id not in self._running:
                with suppress(LeaseLostError):
                    await control.settle_delivery(
                        row.delivery_id, me, State.UNKNOWN.value,
                        attempt=row.attempts, reason="abandoned",
                    )  # fmt: skip
        self._doubt = False

    # ------------------------------------------------------------------------- one attempt

    async def _attempt(self, row: Delivery) -> None:
        channel = self.channels[row.channel]
        try:
            _points.reach("delivery.taken")
            known = await self._known(channel, row)
            found = await self._sent(channel, row) if isinstance(known, bool) else known
            _points.reach("delivery.tried")
            await self._settle(channel, row, found, again=known is True)
        except LeaseLostError:
            _log.info("delivery %s: it is somebody else's by now", row.delivery_id)
        except asyncio.CancelledError:
            await self._cut_short(row)
            raise
        except Exception:  # noqa: BLE001  A bug costs an attempt, not the deliverer.
            _log.exception("delivery %s: its attempt failed", row.delivery_id)
            self._doubt = True
        finally:
            self._running.pop(row.delivery_id, None)
            self._wake.set()

    async def _known(self, channel: Channel, row: Delivery) -> Came | bool:
        """
        What an earlier attempt came to, or what is done if nobody can know.  A bool: it is to
        be sent; True: though it may have arrived.
        """
        if not delivery.is_ambiguous(row):
            return False
        said, why = "unknown", row.reason or "unanswered"
        if channel.reconciles:
            try:
                said = await _bounded(channel.reconcile(_parcel(row)), channel.timeout_s)
            except Exception as error:  # noqa: BLE001  What strangers' channels raise.
                _log.info("delivery %s: it cannot be asked about: %s", row.delivery_id, error)
                return Failure(why, landed=None)
        match said:
            case "delivered":
                return Arrived(row.remote_id)
            case "not_delivered":
                return False
            case _ if channel.ambiguous == "resend":
                return True
        return Next(delivery.Event.REFUSE, why, delivery.MAY_HAVE_ARRIVED)

    async def _sent(self, channel: Channel, row: Delivery) -> Came:
        if not self._is_ours(row):
            raise LeaseLostError(turn_id=row.turn_id, token=row.attempts)
        try:
            arrived = await _bounded(channel.deliver(_parcel(row)), channel.timeout_s)
            _log.info("delivery %s: delivered, attempt %d", row.delivery_id, row.attempts)
            return Arrived(arrived)
        except DeliveryError as error:
            _log.info("delivery %s: %s", row.delivery_id, error)
            after_s = error.retry_after_s
            return Failure(
                error.reason, error.permanent, error.landed,
                None if after_s is None else int(after_s * 1000),
            )  # fmt: skip
        except TimeoutError:
            _log.warning("delivery %s: its channel did not keep its timeout", row.delivery_id)
        except Exception:  # noqa: BLE001  What strangers' channels raise.
            _log.exception("delivery %s: channel %s failed", row.delivery_id, channel.name)
        return Failure("unanswered", landed=None)

    def _is_ours(self, row: Delivery) -> bool:
        """Asked last of all: a process that slept is told here that it is not its any more."""
        now = self._store.control.delivery_now(row.delivery_id)
        mine = now.state == State.ATTEMPTING.value and now.owner_id == row.owner_id
        return mine and now.attempts == row.attempts

    async def _settle(
        self, channel: Channel, row: Delivery, found: Came, *, again: bool
    ) -> None:
        # A part that was sent again in doubt stays one that was, whatever comes of it.
        hint = SENT_AGAIN if again else None
        told: dict[str, Any]
        if isinstance(found, Failure):
            found = delivery.after_failure(
                found, row.attempts, resend=channel.ambiguous == "resend",
                asks=channel.reconciles, doubtful=again or row.hint == SENT_AGAIN,
            )  # fmt: skip
        if isinstance(found, Arrived):
            state, told = State.DELIVERED, {"remote_id": found.remote_id, "hint": hint}
        else:
            state, told = found.state, {"hint": found.hint or hint}
            told |= {"reason": found.reason, "delay_ms": found.delay_ms}
        me = self._store.owner.owner_id
        while True:
            try:
                await self._store.control.settle_delivery(
                    row.delivery_id, me, state.value, attempt=row.attempts, **told
                )
                return
            except StoreError as error:  # Said before anything else is sent there.
                _log.warning("delivery %s: not booked yet: %s", row.delivery_id, error)
                await asyncio.sleep(SETTLE_AGAIN_S)

    async def _cut_short(self, row: Delivery) -> None:
        me = self._store.owner.owner_id
        with suppress(HoldfastError, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_S):
                await self._store.control.settle_delivery(
                    row.delivery_id, me, State.UNKNOWN.value,
                    attempt=row.attempts, reason="abandoned",
                )  # fmt: skip


async def _bounded(call: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """
    Raises TimeoutError if it takes much longer than it promised.  One that does not even mind
    its cancellation is left to itself.
    """
    task = asyncio.ensure_future(call)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s + BEYOND_S)
    except asyncio.CancelledError:
        task.cancel()
        task.add_done_callback(_forget)
        raise
    if not done:
        task.cancel()
        task.add_done_callback(_forget)
        raise TimeoutError
    return task.result()


def _forget(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # Seen.


def _parcel(row: Delivery) -> Parcel:
    told = msgspec.json.decode(row.body)
    return Parcel(
        row.delivery_id, row.kind, row.turn_id, row.session_id, told["session"], row.address,
        row.part, row.parts, told["text"], row.body, row.body_hash, row.attempts,
    )  # fmt: skip

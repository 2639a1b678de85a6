"""
A turn that asks for another turn and waits for its outcome.

    child admitted (refused if that would be a cycle) ─▶ slot given back, lease kept
        ─▶ child's outcome ─▶ next free slot of the lane, ahead of new turns

Two turns can wait for each other only through a session's lease, because nothing that waits
holds a slot; the store looks for the cycle in the transaction that would close it.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from holdfast._runtime.current import CURRENT
from holdfast._runtime.receipts import outcome_of
from holdfast.errors import LeaseLostError

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast._runtime.current import Current
    from holdfast._runtime.handing import Handing
    from holdfast._runtime.receipts import Outcome
    from holdfast._runtime.sending import Sending
    from holdfast.ports import Store
    from holdfast.types import TurnId

__all__ = ["Outer", "ask"]


class _Door(Protocol):
    store: Store
    settings: Settings
    handing: Handing

    async def change(self) -> None: ...


async def ask(door: Sending, key: str, text: str, **more: Any) -> Outcome:
    """See `Sending.ask`."""
    current = CURRENT.get()
    if current is None or current.owner_id != door.store.owner.owner_id:
        receipt = await door.submit(key, text, **more)
        return await receipt.outcome()
    child = await door.submit_child(key, text, current.turn_id, **more)
    await door.store.control.wait_for(current.turn_id, current.token, child)
    own = door.handing.own.get(current.turn_id)
    with nullcontext() if own is None else own.waiting():
        ended = await door.outcome_of(child)
        # Cancelled here or above, it goes without: an aborted turn needs no slot to end.
        while not await _has_slot(door, current, child):
            await door.change()
    return await outcome_of(door.store.control, ended)


class Outer:
    """
    The turn, if any, whose tool or block is what the running task is: it waits for a turn
    that this task brings its own loop for (`hf.turn`), as long as that lasts.
    """

    def __init__(self, door: _Door) -> None:
        self._door, self._waiting = door, ExitStack()
        self._child: TurnId | None = None
        current = CURRENT.get()
        ours = current is not None and (
            current.owner_id == door.store.owner.owner_id
            and current.task is asyncio.current_task()
        )
        self._current = current if ours else None

    @property
    def turn_id(self) -> TurnId | None:
        return None if self._current is None else self._current.turn_id

    async def waits_for(self, child: TurnId) -> None:
        """Its slot goes back.  Raises DeadlockError, LeaseLostError."""
        if self._current is None:
            return
        turn_id = self._current.turn_id
        await self._door.store.control.wait_for(turn_id, self._current.token, child)
        self._child = child
        own = self._door.handing.own.get(turn_id)
        if own is not None:
            self._waiting.enter_context(own.waiting())

    async def goes_on(self) -> None:
        """Until it has a slot again.  Cancelled, it goes without: it is about to end."""
        with self._waiting:
            while (
                self._current is not None
                and self._child is not None
                and not await _has_slot(self._door, self._current, self._child)
            ):
                await self._door.change()


async def _has_slot(door: _Door, current: Current, child: TurnId) -> bool:
    try:
        return await door.store.control.regain(
            current.turn_id, current.token, door.settings.lanes, child=child
        )
    except LeaseLostError:
        return True  # Fenced meanwhile: whatever it does next is refused.

"""
A turn that asks for another turn and waits for its outcome.

    child admitted (refused if that would be a cycle) ─▶ slot given back, lease kept
        ─▶ child's outcome ─▶ next free slot of the lane, ahead of new turns

Two turns can wait for each other only through a session's lease, because nothing that waits
holds a slot; the store looks for the cycle in the transaction that would close it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast._runtime.current import CURRENT
from holdfast._runtime.receipts import outcome_of
from holdfast.errors import LeaseLostError

if TYPE_CHECKING:
    from holdfast._runtime.current import Current
    from holdfast._runtime.receipts import Outcome
    from holdfast._runtime.sending import Sending
    from holdfast.types import TurnId

__all__ = ["ask"]


async def ask(door: Sending, key: str, text: str, **more: Any) -> Outcome:
    """See `Sending.ask`."""
    current = CURRENT.get()
    if current is None or current.owner_id != door.store.owner.owner_id:
        receipt = await door.submit(key, text, **more)
        return await receipt.outcome()
    child = await door.submit_child(key, text, current.turn_id, **more)
    await door.store.control.wait_for(current.turn_id, current.token, child)
    ended = await door.outcome_of(child)
    # Cancelled here or above, it goes without: an aborted turn needs no slot to end.
    while not await _has_slot(door, current, child):
        await door.change()
    return await outcome_of(door.store.control, ended)


async def _has_slot(door: Sending, current: Current, child: TurnId) -> bool:
    try:
        return await door.store.control.regain(
            current.turn_id, current.token, door.settings.lanes, child=child
        )
    except LeaseLostError:
        return True  # Fenced meanwhile: whatever it does next is refused.

"""`holdfast sessions reset`: a key begins a new conversation; what waits goes along."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli import output

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast.types import Reset

__all__ = ["reset"]


def reset(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Session key or alias, e.g. main.")],
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Let KEY begin a new conversation.

    Turns that wait go along, in their order; one that has started ends where it began.  The
    old session keeps its transcript: `sessions list` has it, `sessions show KEY` names it.  A
    message that is sent again with its idempotency key finds its first receipt.
    """
    from holdfast._core import keys

    key, where, settings = keys.canonical(key), output.where(store), output.settings()
    output.opened(store)  # Nothing is made where nothing is.
    done = asyncio.run(_reset(where, settings, key))
    if as_json:
        output.emit(
            {
                "session": key,
                "old": done.old.session_id,
                "new": done.new.session_id,
                "moved": list(done.moved),
                "stayed": list(done.stayed),
            }
        )
        return
    output.say(f"{key}: session {done.new.session_id}, before {done.old.session_id}")
    if done.moved:
        output.say(f"  {len(done.moved)} waiting turn(s) went along")
    if done.stayed:
        output.say(f"  {len(done.stayed)} turn(s) had started, and end in the old session")


async def _reset(where: str, settings: Settings, key: str) -> Reset:
    from holdfast import _assemble

    async with _assemble.opened(where, settings) as hf:
        return await hf.reset(key)

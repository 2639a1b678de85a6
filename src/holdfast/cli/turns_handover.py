"""`holdfast turns handover`: ask whoever holds a session to let go of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli import output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.settings import Settings
    from holdfast._runtime.handing import Handed
    from holdfast.backends.files.reading import FilesReading

__all__ = ["handover"]

BUSY, NO_ANSWER = 1, 4  # Exit codes.


def handover(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Session key or alias, e.g. main.")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait.", min=0)] = 10.0,
    store: output.Store = None,
    config: output.Config = None,
    as_json: output.Json = False,
) -> None:
    """
    Ask whoever holds a session to let go of it.

    A turn that moves keeps its session, and says what it does.  One in which nothing happens
    goes back to its place in the queue, where another process that runs its agent takes it, if
    there is one; or it ends, if its program answers it itself.  Whoever is frozen or gone does
    not answer; then this says what is known, and what will happen next.
    Exit code 0: it let go, or nobody held it; 1: it is busy; 4: no answer.

    \b
    holdfast turns handover main
    holdfast turns handover agent:main:main --timeout 2 --json
    """
    from holdfast._core import keys

    key, where, settings = keys.canonical(key), output.where(store), output.settings(config)
    reading = output.opened(store)
    reading.session(key)
    done = asyncio.run(_hand_over(where, settings, key, timeout))
    asked = done.answer != "busy" and done.turn_id is not None
    known = _known(reading, settings, key) if asked else None
    if as_json:
        told = {"session": key, "session_id": done.session_id, "turn_id": done.turn_id}
        said = {
            "answer": done.answer, "detail": done.detail or None, "again": done.again,
        }  # fmt: skip
        output.emit({**told, **said, **(known or {})})
    else:
        _print(key, done, known or {})
    raise typer.Exit({"let_go": 0, "busy": BUSY}.get(done.answer or "", NO_ANSWER))


async def _hand_over(where: str, settings: Settings, key: str, timeout_s: float) -> Handed:
    from holdfast import _assemble

    async with _assemble.opened(where, settings) as hf:
        return await hf.handover(key, timeout_s=timeout_s)


def _known(reading: FilesReading, settings: Settings, key: str) -> dict[str, Any]:
    """What `why` says: of who does not answer, or has it now."""
    from holdfast._core.explaining import Explained
    from holdfast._stamps import age_ms

    rows, around = reading.why(
        reading.session(key), settings.lanes, stale_ms=settings.write_lock_stale_ms
    )
    told = Explained(key, rows, around, settings, age_ms).to_json()
    return {name: told.get(name) for name in ("holder", "broken", "next")}


def _print(key: str, done: Handed, known: Mapping[str, Any]) -> None:
    if done.turn_id is None:
        output.say(f"{key}: nobody holds it")
    elif done.answer == "let_go":
        output.say(f"{key}: let go by turn {done.turn_id}: {done.detail}")
        _print_now(done, known)
    elif done.answer == "busy":
        output.say(f"{key}: turn {done.turn_id} keeps it: {done.detail}")
    else:
        holder = known.get("holder") or {}
        who = f"pid {holder['pid']} on {holder['host']}" if holder.get("pid") else "its owner"
        life = f" ({holder['life']})" if holder.get("life") not in {None, "alive"} else ""
        output.say(f"{key}: no answer from {who}{life}, which runs turn {done.turn_id}")
        for each in known.get("broken") or ():
            output.say(f"  {each['detail']}")
            output.say(f"  → {each['do']}")
        if known.get("next"):
            output.say(f"  next: {known['next']}")


def _print_now(done: Handed, known: Mapping[str, Any]) -> None:
    holder = known.get("holder")
    if holder is None:
        output.say(f"  next: {known.get('next')}")
        return
    again = " again: no other process could take it" if done.again else ""
    where = f"pid {holder['pid']} on {holder['host']}" if holder["pid"] else "its process"
    output.say(f"  now: the {holder['lane']} turn {holder['turn_id']}, in {where}{again}")

"""`holdfast sessions repair|import|delete`: the commands that change whole transcripts."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output
from holdfast.cli.sessions_verify import is_file
from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from holdfast._core.settings import Settings
    from holdfast.types.tending import Deleted, Repaired

__all__ = ["bring", "delete", "repair"]

CANCEL_WAIT_S: Final = 60.0  #: For turns that were asked to end.
LINES_NAMED: Final = 20


def repair(
    what: Annotated[
        str, typer.Argument(metavar="FILE|KEY", help="Any transcript, or a session.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; lock and change nothing.")
    ] = False,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Make a damaged transcript one that may be appended to again, keeping a copy.

    Nothing that parses is dropped.  What does not parse is moved out: it stands in the copy,
    FILE.bak-<time>-<id>, which is there before anything is changed.  Takes the write lock;
    runs that wait go on afterwards.  Exit code 1 if `sessions verify` would still find
    something.
    """
    from holdfast import _assemble_tending

    settings = output.settings()
    path = what
    if not is_file(what):
        from holdfast._core import keys

        reading = output.opened(store)
        path = reading.path(reading.session(keys.canonical(what)))
    if dry_run:
        done = _assemble_tending.would_repair(path)
    else:
        timeout_s = settings.write_lock_acquire_timeout_ms / 1000
        done = _assemble_tending.repair_file(path, settings, timeout_s=timeout_s)
    if as_json:
        output.emit(_as_json(done, dry_run=dry_run))
    else:
        _print(done, dry_run=dry_run)
    if done.remaining:
        raise typer.Exit(1)


def _as_json(done: Repaired, *, dry_run: bool) -> dict[str, Any]:
    remaining = [{"line": n, "code": code, "detail": told} for n, code, told in done.remaining]
    return {**asdict(done), "dry_run": dry_run, "remaining": remaining}


def _print(done: Repaired, *, dry_run: bool) -> None:
    if not done.changed:
        output.say(f"{done.path}: {done.entries} entries: nothing to repair")
    else:
        verb = "would be repaired" if dry_run else "repaired"
        output.say(f"{done.path}: {done.entries} entries: {verb}")
        for name, count in done.counts.items():
            output.say(f"  {name:<18}{count}")
        if done.moved_out:
            lines = ", ".join(map(str, done.moved_out[:LINES_NAMED]))
            more = len(done.moved_out) - LINES_NAMED
            where = "the file" if dry_run else "the copy"
            output.say(f"  moved out: line {lines}{f' and {more} more' if more > 0 else ''}"
                       f" of {where}")  # fmt: skip
        if done.copy is not None:
            output.say(f"  as it was: {done.copy}")
    for line, code, detail in done.remaining:
        output.say(f"  remains: line {line}: {code}: {detail}")


def bring(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A transcript, JSONL.")],
    key: Annotated[
        str | None,
        typer.Option("--key", help="Default: what the export says, or the file's name."),
    ] = None,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Make a new session of a transcript: one of ours, or of a system with the same format.

    Format versions 1 to 3.  Every entry is kept as it is; FILE is not changed.
    """
    from holdfast import _assemble_tending

    where, settings = output.where(store), output.settings()
    with _assemble_tending.tended(where, settings) as tender:
        done = tender.bring(file, key)
    if as_json:
        output.emit(asdict(done))
        return
    older = f", from format version {done.migrated_from}" if done.migrated_from != 3 else ""
    output.say(f"{done.session_key}: {done.entries} entries{older}: session {done.session_id}")


def delete(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Session key or alias.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="First cancel turns that run or wait.")
    ] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the transcript and the texts of its turns.")
    ] = False,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Take a session away.  The next message to KEY begins a new one.

    The transcript is kept as FILE.deleted-<time>-<id>, and can be imported again.  Refuses
    while a turn runs or waits.  What became of its turns stays on record.
    """
    from holdfast._core import keys

    key, where = keys.canonical(key), output.where(store)
    reading = output.opened(store)
    facts = reading.facts(reading.session(key))
    if not yes:
        _ask(key, facts, purge=purge)
    settings = output.settings()
    timeout_s = settings.write_lock_acquire_timeout_ms / 1000
    if cancel:
        done = asyncio.run(_cancel_and_delete(where, settings, key, purge=purge))
    else:
        from holdfast import _assemble_tending

        with _assemble_tending.tended(where, settings) as tender:
            done = tender.delete(key, purge=purge, timeout_s=timeout_s)
    if as_json:
        output.emit(asdict(done))
        return
    kept = (
        f"its transcript is now {done.moved_to}"
        if done.moved_to
        else "its transcript and its texts are gone"
    )
    output.say(f"{', '.join(done.keys)}: deleted; {kept}")


def _ask(key: str, facts: dict[str, Any], *, purge: bool) -> None:
    if not output.is_terminal(sys.stdin):
        raise BadRequestError(
            detail=f"{key} is not deleted without being asked for", hint="say --yes"
        )
    how = "and everything in it" if purge else "and keep its transcript aside"
    typer.confirm(
        f"Delete {', '.join(facts['keys'])} ({facts['turns']} turns) {how}?",
        abort=True,
        err=True,
    )


async def _cancel_and_delete(
    where: str, settings: Settings, key: str, *, purge: bool
) -> Deleted:
    """Another message may come in between; then it is named, and nothing is deleted."""
    from holdfast import _assemble, _assemble_tending

    async with _assemble.opened(where, settings) as hf:
        session = await hf.session(key)
        for state in ("accepted", "running"):
            for turn in await hf.store.control.turns(
                session_id=session.session_id, state=state
            ):
                await hf.cancel(turn.turn_id)
                receipt = await hf.receipt(turn.turn_id)
                await receipt.outcome(timeout_s=CANCEL_WAIT_S)
        tender = _assemble_tending.tending(hf.store)
        timeout_s = settings.write_lock_acquire_timeout_ms / 1000
        return await asyncio.to_thread(tender.delete, key, purge=purge, timeout_s=timeout_s)

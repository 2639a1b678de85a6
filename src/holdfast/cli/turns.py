"""`holdfast turns`: what became of every message."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import asdict
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output
from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.salvage import Salvage
    from holdfast._core.settings import Settings
    from holdfast._runtime.promoting import Promoted
    from holdfast.backends.files.reading import FilesReading
    from holdfast.types import Owner, Place, Turn, TurnId

__all__ = ["app"]

CANCEL_WAIT_S: Final = 5.0  #: A running turn ends within its settle bound; then we say so.

app = typer.Typer(
    help="""\
Messages and what became of them: list, show, cancel, promote.

\b
holdfast turns list --session main
holdfast turns list --state accepted --json
holdfast turns show 01a1f8d6-7ea5
"""
)

Id = Annotated[
    str, typer.Argument(metavar="ID", help="A turn's id, or a beginning that only it has.")
]


@app.command("list")
def list_(
    session: Annotated[str | None, typer.Option(help="Only this session's.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only these: accepted, running, committed, done.")
    ] = None,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """List turns in the order in which they were accepted."""
    from holdfast._core import keys
    from holdfast._core.turns import State

    if state is not None and state not in {each.value for each in State}:
        raise BadRequestError(
            detail=f"no such state: {state[:80]!r}",
            hint=f"use one of {', '.join(each.value for each in State)}",
        )
    key = None if session is None else keys.canonical(session)
    settings, reading = output.settings(), output.opened(store)
    session_id = None if key is None else reading.session(key).session_id
    waits = _Waits(reading)
    found = [
        _listed(turn, waits.place(turn, place))
        for turn, place in reading.turns(settings.lanes, session_id=session_id, state=state)
    ]
    if as_json:
        output.emit({"turns": found})
        return
    output.table(
        ("TURN", "SESSION", "LANE", "STATE", "TRIES", "ACCEPTED", "WAITS", "TEXT"),
        (
            (
                turn["turn_id"], turn["session"], turn["lane"],
                turn["outcome"] or turn["state"], turn["attempts"], turn["accepted_at"],
                _waits(turn), output.cut(turn["text"], 40),
            )
            for turn in found
        ),
    )  # fmt: skip
    if not found:
        output.note("holdfast: no such turns")


@app.command()
def show(id_: Id, store: output.Store = None, as_json: output.Json = False) -> None:
    """Show everything about one turn: outcome, reason, reply, who runs it."""
    settings, reading = output.settings(), output.opened(store)
    turn, place = reading.turn(id_, settings.lanes)
    told = _told(reading, turn, _Waits(reading).place(turn, place))
    if as_json:
        output.emit(told)
        return
    long = ("text", "reply", "salvaged")
    for name, value in told.items():
        if name not in long and value is not None and value is not False:
            output.say(f"{name:<16}{output.cut(str(value), 400)}")
    for name in long[:2]:
        if told[name]:
            output.say(f"\n{output.paint(name, 'bold')}")
            output.say(indent(told[name], "  "))
    for kept in told["salvaged"]:
        title = f"salvaged from attempt {kept['attempt']}, in {_where(kept)}"
        output.say(f"\n{output.paint(title, 'bold')}")
        output.say(indent(kept["text"] or "(tool calls and results only)", "  "))


@app.command()
def cancel(id_: Id, store: output.Store = None, as_json: output.Json = False) -> None:
    """
    Ask for a turn's end.

    A waiting turn ends now, a running one as soon as its runner sees it.  Exit code 1 if it
    had ended otherwise.
    """
    settings = output.settings()
    turn_id = output.opened(store).turn(id_, settings.lanes)[0].turn_id
    turn = asyncio.run(_cancel(output.where(store), settings, turn_id))
    if as_json:
        output.emit({"turn_id": turn_id, "state": turn.state, "outcome": turn.outcome})
    elif turn.outcome == "cancelled":
        output.say(f"{turn_id}: cancelled")
    elif turn.outcome is None:
        output.say(f"{turn_id}: its runner was asked to end it")
    else:
        output.note(f"holdfast: turn {turn_id} has ended already: {turn.outcome}")
    if turn.outcome not in {None, "cancelled"}:
        raise typer.Exit(1)


@app.command()
def promote(id_: Id, store: output.Store = None, as_json: output.Json = False) -> None:
    """
    Put a salvaged reply into the transcript, as a new entry at its end.

    For a reply whose transcript was rewritten while its model talked; `show` lists them.  The
    turn keeps the outcome it has.  A second time nothing is written.
    """
    settings = output.settings()
    turn_id = output.opened(store).turn(id_, settings.lanes)[0].turn_id
    done = asyncio.run(_promote(output.where(store), settings, turn_id))
    if as_json:
        output.emit(asdict(done))
    elif done.fresh:
        output.say(f"{turn_id}: promoted as entry {done.entry}")
    else:
        output.say(f"{turn_id}: was promoted before, as entry {done.entry}")


async def _promote(where: str, settings: Settings, turn_id: TurnId) -> Promoted:
    from holdfast import _assemble
    from holdfast._runtime.promoting import promote

    async with _assemble.opened(where, settings) as hf:
        return await promote(hf.store, settings, turn_id)


async def _cancel(where: str, settings: Settings, turn_id: str) -> Turn:
    from holdfast import _assemble

    async with _assemble.opened(where, settings) as hf:
        turn = await hf.cancel(turn_id)
        if not turn.ended:
            receipt = await hf.receipt(turn_id)
            with suppress(TimeoutError):
                await receipt.outcome(timeout_s=CANCEL_WAIT_S)
            turn = await hf.store.control.turn(turn.turn_id)
        return turn


class _Waits:
    """What turns wait for, as far as it can be seen from outside."""

    def __init__(self, reading: FilesReading) -> None:
        self._reading = reading
        self._answered: dict[str, bool] = {}

    def place(self, turn: Turn, place: Place) -> dict[str, Any]:
        """A runner that has died may stand in the rows until somebody looks: ask /proc."""
        waiting = turn.state == "accepted"
        waiting_for = place.waiting_for
        if waiting and not turn.bound:
            known = self._answered.get(turn.agent_id)
            if known is None:
                known = bool(self._reading.runners(turn.agent_id))
                self._answered[turn.agent_id] = known
            waiting_for = waiting_for if known else "no_runner"
        return {"position": place.position if waiting else None, "waiting_for": waiting_for}


def _waits(turn: Mapping[str, Any]) -> str:
    if turn["position"] is None:
        return ""
    return f"{turn['position']} {turn['waiting_for'] or ''}".strip()


def _listed(turn: Turn, place: dict[str, Any]) -> dict[str, Any]:
    return {
        "turn_id": turn.turn_id,
        "session": turn.session_key,
        "lane": turn.lane,
        "source": turn.source,
        "state": turn.state,
        "outcome": turn.outcome,
        "attempts": turn.attempts,
        "accepted_at": turn.accepted_at,
        **place,
        "text": turn.text,
    }


def _told(reading: FilesReading, turn: Turn, place: dict[str, Any]) -> dict[str, Any]:
    from holdfast._core import salvage

    row = {n: v for n, v in asdict(turn).items() if n not in {"session_key", "agent_id"}}
    owner = reading.owner(turn.owner_id) if turn.owner_id else None
    home = reading.owner(turn.home) if turn.home else None
    return {
        "turn_id": turn.turn_id,
        "session": turn.session_key,
        "agent": turn.agent_id,
        **row,
        "finished": turn.finished is not None,
        "salvaged": [_kept(reading, each) for each in salvage.read(turn.salvaged)],
        **place,
        "owner": _process(owner),
        "home_process": _process(home),
        "live_log": reading.live_log(turn.turn_id),
    }


def _kept(reading: FilesReading, kept: Salvage) -> dict[str, Any]:
    return {
        "attempt": kept.attempt,
        "where": kept.where,
        "file": None if kept.file is None else os.path.join(reading.where, kept.file),
        "entries": list(kept.ids),
        "text": kept.text,
        "tool_messages": len(kept.made) or max(len(kept.entries) - 1, 0),
    }


def _where(kept: Mapping[str, Any]) -> str:
    """Where a person finds it."""
    if kept["where"] == "transcript":
        return f"the transcript, beside the branch: {', '.join(kept['entries'])}"
    return kept["file"] or "the turn's row"


def _process(owner: Owner | None) -> str | None:
    from holdfast.backends.files.reading import is_dead

    if owner is None:
        return None
    return f"pid {owner.pid} on {owner.host}{' (dead)' if is_dead(owner) else ''}"

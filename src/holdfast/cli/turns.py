"""`holdfast turns`: what became of every message."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output, turns_handover, turns_show
from holdfast.errors import BadRequestError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.settings import Settings
    from holdfast._runtime.promoting import Promoted
    from holdfast.types import Turn, TurnId

__all__ = ["app"]

CANCEL_WAIT_S: Final = 5.0  #: A running turn ends within its settle bound; then we say so.

app = typer.Typer(
    help="""\
Messages and what became of them: list, show, cancel, promote; handover.

\b
holdfast turns list --session main
holdfast turns list --state accepted --json
holdfast turns show 01a1f8d6-7ea5
"""
)

Id = turns_show.Id


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
    waits = turns_show.Waits(reading, settings.lanes)
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


app.command()(turns_show.show)
app.command()(turns_handover.handover)


@app.command()
def cancel(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="ID|KEY|FILE",
            help="A turn's id; or whatever names a session: a key, its id, its transcript.",
        ),
    ],
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Its question leaves the conversation, too.")
    ] = False,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Ask for a turn's end; of a session, for the end of what runs in it.

    A waiting turn ends now, a running one as soon as its runner sees it.  Exit code 1 if it
    had ended otherwise.
    """
    settings, turn_id, reading = output.settings(), None, output.opened(store)
    with suppress(NotFoundError):
        turn_id = reading.turn(ref, settings.lanes)[0].turn_id
    turn = asyncio.run(_cancel(output.where(store), settings, turn_id, ref, rollback=rollback))
    turn_id = turn.turn_id
    if as_json:
        output.emit({"turn_id": turn_id, "state": turn.state, "outcome": turn.outcome})
    elif turn.outcome == "cancelled":
        output.say(f"{turn_id}: cancelled")
    elif turn.outcome is None and turn.host is not None:
        output.say(f"{turn_id}: it was taken into turn {turn.host}, and ends with that")
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


async def _cancel(
    where: str, settings: Settings, turn_id: TurnId | None, ref: str, *, rollback: bool
) -> Turn:
    from holdfast import _assemble

    async with _assemble.opened(where, settings) as hf:
        turn_id = turn_id or (await hf.find_run(ref)).turn_id
        turn = await hf.cancel(turn_id, rollback=rollback)
        if not turn.ended:
            receipt = await hf.receipt(turn.turn_id)
            with suppress(TimeoutError):
                await receipt.outcome(timeout_s=CANCEL_WAIT_S)
            turn = await hf.store.control.turn(turn.turn_id)
        return turn


def _waits(turn: Mapping[str, Any]) -> str:
    return "" if turn["position"] is None else output.cut(turn["waits"] or "starts now")


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

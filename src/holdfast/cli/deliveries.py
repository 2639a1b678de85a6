"""`holdfast deliveries`: what is owed to channels, and letting go of what will never arrive."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast._core.delivery import State
from holdfast.cli import output
from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast._core.settings import Settings
    from holdfast.types import Delivery

__all__ = ["app"]

app = typer.Typer(
    help="""\
Parts of replies that are owed to channels: list, drop.

\b
holdfast deliveries list --session main
holdfast deliveries list --state failed
holdfast deliveries drop --channel crm
"""
)

Session = Annotated[
    str | None, typer.Option(metavar="KEY", help="Only of this session's replies.")
]
Channel = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only what goes to this channel.")
]


@app.command("list")
def list_(
    session: Session = None,
    channel: Channel = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="Only these: pending, attempting, unknown, delivered, failed."
            "  Default: what is still owed."
        ),
    ] = None,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """List what is owed, in the order in which it came to be owed."""
    if state is not None and state not in {each.value for each in State}:
        raise BadRequestError(
            detail=f"no such state: {state[:80]!r}",
            hint=f"use one of {', '.join(each.value for each in State)}",
        )
    found = [_told(each) for each in _owed(session, channel, state, store)]
    if as_json:
        output.emit({"deliveries": found})
        return
    output.table(
        ("DELIVERY", "SESSION", "TARGET", "PART", "STATE", "TRIES", "SINCE", "REASON"),
        (
            (
                each["delivery_id"], each["session"], each["target"],
                f"{each['part']}/{each['parts']}", each["state"], each["attempts"],
                each["since"], each["reason"],
            )
            for each in found
        ),
    )  # fmt: skip
    if not found:
        output.note("holdfast: no such deliveries")


@app.command()
def drop(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID...", help="As `list` has them.")
    ] = None,
    session: Session = None,
    channel: Channel = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: output.Store = None,
    as_json: output.Json = False,
) -> None:
    """
    Stop trying to deliver what is named, or all that is owed.

    They end `failed`, reason `dropped`; the reply stays in its transcript.  What is being sent
    at this moment is left alone.  Exit code 1 if anything was.
    """
    if bool(ids) == (session is not None or channel is not None):
        raise BadRequestError(
            detail="nothing, or too much, is named",
            hint="name deliveries by their ids, or --session, --channel or both",
        )
    names = ids or [each.delivery_id for each in _owed(session, channel, None, store)]
    if not ids and names and not yes:
        _ask(len(names))
    rows = asyncio.run(_drop(output.where(store), output.settings(), names)) if names else []
    left = [each for each in rows if each.reason != "dropped"]
    dropped = len(rows) - len(left)
    if as_json:
        output.emit({"deliveries": [_told(each) for each in rows], "dropped": dropped})
    else:
        for each in left:
            why = "is being sent now" if each.state == State.ATTEMPTING.value else each.state
            output.note(f"holdfast: {each.delivery_id} was left alone: {why}")
        output.say(f"{dropped} dropped")
    if left:
        raise typer.Exit(1)


def _owed(
    session: str | None, channel: str | None, state: str | None, store: str | None
) -> list[Delivery]:
    from holdfast._core import keys

    reading = output.opened(store)
    key = None if session is None else keys.canonical(session)
    session_id = None if key is None else reading.session(key).session_id
    return list(reading.owed(session_id, channel, state))


def _ask(count: int) -> None:
    if not output.is_terminal(sys.stdin):
        raise BadRequestError(
            detail=f"{count} parts are not dropped without being asked for", hint="say --yes"
        )
    typer.confirm(f"Drop {count} parts, so that they never arrive?", abort=True, err=True)


async def _drop(where: str, settings: Settings, names: Collection[str]) -> list[Delivery]:
    from holdfast import _assemble

    async with _assemble.opened(where, settings) as hf:
        return [await hf.store.control.drop_delivery(each) for each in names]


def _told(owed: Delivery) -> dict[str, Any]:
    body = json.loads(owed.body) if owed.body else {}  # Purged with its session.
    return {
        "delivery_id": owed.delivery_id,
        "turn_id": owed.turn_id,
        "session": body.get("session"),
        "kind": owed.kind,
        "target": owed.target,
        "part": owed.part,
        "parts": owed.parts,
        "state": owed.state,
        "attempts": owed.attempts,
        "since": owed.created_at,
        "reason": owed.reason,
        "hint": owed.hint,
    }

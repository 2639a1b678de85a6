"""`holdfast turns show`: everything about one turn.  Reading only."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast._core import words
from holdfast._stamps import age_ms
from holdfast.cli import output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.salvage import Salvage
    from holdfast._core.settings import Lane
    from holdfast.backends.files.reading import FilesReading
    from holdfast.types import Delivery, Owner, Place, ToolRecord, Turn

__all__ = ["Id", "Waits", "show"]

Id = Annotated[
    str, typer.Argument(metavar="ID", help="A turn's id, or a beginning that only it has.")
]

_LONG: Final = ("text", "reply", "salvaged", "tool_calls", "deliveries")


def show(id_: Id, store: output.Store = None, as_json: output.Json = False) -> None:
    """
    Show everything about one turn: outcome, reason, reply, who runs it, what it waits for,
    tool calls, merges, deliveries.
    """
    settings, reading = output.settings(), output.opened(store)
    turn, place = reading.turn(id_, settings.lanes)
    told = _told(reading, turn, Waits(reading, settings.lanes).place(turn, place))
    if as_json:
        output.emit(told)
        return
    for name, value in told.items():
        if name not in _LONG and value not in (None, False, [], ""):
            shown = " ".join(value) if isinstance(value, list) else str(value)
            output.say(f"{name:<16}{output.cut(shown, 400)}")
    for name in ("text", "reply"):
        if told[name]:
            output.say(f"\n{output.paint(name, 'bold')}")
            output.say(indent(told[name], "  "))
    for kept in told["salvaged"]:
        title = f"salvaged from attempt {kept['attempt']}, in {_where(kept)}"
        output.say(f"\n{output.paint(title, 'bold')}")
        output.say(indent(kept["text"] or "(tool calls and results only)", "  "))
    _print_tools(told["tool_calls"])
    _print_deliveries(told["deliveries"])


def _print_tools(calls: list[dict[str, Any]]) -> None:
    if calls:
        output.say(f"\n{output.paint('tool calls', 'bold')}")
        output.table(
            ("CALL", "TOOL", "STATE", "REPLAY", "RUNS", "STARTED", "ENDED"),
            (
                (call["call_id"], call["name"], call["state"], call["replay"], call["runs"],
                 call["started_at"], call["ended_at"])
                for call in calls
            ),
        )  # fmt: skip


def _print_deliveries(owed: list[dict[str, Any]]) -> None:
    if owed:
        output.say(f"\n{output.paint('deliveries', 'bold')}")
        output.table(
            ("DELIVERY", "TARGET", "PART", "STATE", "TRIES", "REASON", "HINT"),
            (
                (each["delivery_id"], each["target"], f"{each['part']}/{each['parts']}",
                 each["state"], each["attempts"], each["reason"], each["hint"])
                for each in owed
            ),
        )  # fmt: skip


class Waits:
    """What turns wait for, as far as it can be seen from outside."""

    def __init__(self, reading: FilesReading, lanes: Mapping[str, Lane]) -> None:
        self._reading, self._lanes = reading, lanes
        self._answered: dict[str, bool] = {}

    def place(self, turn: Turn, place: Place) -> dict[str, Any]:
        """A runner that has died may stand in the rows until somebody looks: ask /proc."""
        if turn.state != "accepted":
            return {"position": None, "waiting_for": None, "waits": None}
        if not turn.bound and place.waiting_for != "merge":
            known = self._answered.get(turn.agent_id)
            if known is None:
                known = bool(self._reading.runners(turn.agent_id))
                self._answered[turn.agent_id] = known
            if not known:
                place = replace(place, waiting_for="no_runner")
        age = None if place.since is None else age_ms(place.since)
        return {
            "position": place.position,
            "waiting_for": place.waiting_for,
            "waits": words.reason(place, age_ms=age, agent=turn.agent_id, lanes=self._lanes),
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
        "merged": reading.merged_into(turn),
        "tool_calls": [_call(each) for each in reading.tool_calls(turn.turn_id)],
        "deliveries": [_delivery(each) for each in reading.deliveries(turn.turn_id)],
    }


def _call(call: ToolRecord) -> dict[str, Any]:
    told = asdict(call)
    del told["turn_id"]
    return told


def _delivery(owed: Delivery) -> dict[str, Any]:
    told = asdict(owed)
    for name in ("turn_id", "session_id", "body", "owner_id"):
        del told[name]
    return {**told, "bytes": len(owed.body)}


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

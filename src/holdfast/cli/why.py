"""`holdfast why`: who blocks whom, since when, and what will happen next.  Reading only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast._core.explaining import Explained

__all__ = ["why"]

_STYLES: Final = {"blocked": "red", "recovering": "yellow", "ending": "yellow"}


def why(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Session key or alias, e.g. main.")],
    store: output.Store = None,
    config: output.Config = None,
    as_json: output.Json = False,
) -> None:
    """
    Say who holds a session, who waits for it and for what, and what will happen next.

    Names whichever condition does not hold: no runner is alive, a holder is stopped, the
    store cannot be written, a lock file was removed.  Locks and changes nothing.

    \b
    holdfast why main
    holdfast why agent:main:main --json
    """
    from holdfast._core import keys
    from holdfast._core.explaining import Explained
    from holdfast._stamps import age_ms

    key = keys.canonical(key)
    settings, reading = output.settings(config), output.opened(store)
    session = reading.session(key)
    rows, around = reading.why(session, settings.lanes, stale_ms=settings.write_lock_stale_ms)
    found = Explained(key, rows, around, settings, age_ms)
    if as_json:
        output.emit(found.to_json())
    else:
        _print(found)


def _print(found: Explained) -> None:
    told = found.to_json()
    _line("session", f"{told['session']}  {told['session_id']}")
    _line("state", output.paint(found.state, _STYLES.get(found.state, "green")))
    if told["holder"] is not None:
        _line("held by", _holder(told["holder"]))
    if told["write_lock"] is not None:
        _line("write lock", _lock(told["write_lock"]))
    if told["owed"]:
        _line("owed", f"{told['owed']} part(s) of replies")
        for each in told["deliveries"]:
            _line("", f"{each['delivery_id']} for {each['target']} {each['waits']}")
        if (more := told["owed"] - len(told["deliveries"])) > 0:
            _line("", f"and {more} more")
    if told["waiting"]:
        _line("waiting", str(told["waiting_count"]))
        for each in told["waiting"]:
            _waiting(each)
        more = told["waiting_count"] - len(told["waiting"])
        if more > 0:
            _line("", f"and {more} more")
    for each in found.broken:
        _line("broken", output.paint(each.detail, "red" if each.blocks else "yellow"))
        _line("", f"→ {each.do}")
    _line("next", found.next)


def _line(name: str, text: str) -> None:
    output.say(f"{name:<12}{text}")


def _holder(holder: Mapping[str, Any]) -> str:
    from holdfast._core.words import duration

    who = f"pid {holder['pid']} on {holder['host']}" if holder["pid"] else "a process that left"
    life = "" if holder["life"] == "alive" else f" ({holder['life']})"
    told = (
        f"the {holder['lane']} turn {holder['turn_id']}, attempt {holder['attempts']},"
        f" for {duration(holder['age_ms'])}, in {who}{life}"
    )
    progress = holder["progress"]
    if progress.get("kind"):
        tool = f" {progress['tool']}" if progress.get("tool") else ""
        told += f"; {progress['kind']}{tool}"
    if holder["waits_for"]:
        told += f"; waits for its child {holder['waits_for']}"
    return told


def _lock(lock: Mapping[str, Any]) -> str:
    from holdfast._core.words import duration

    age = "" if lock["age_ms"] is None else f" for {duration(lock['age_ms'])}"
    stopped = " (stopped)" if lock["holder"].get("stopped") else ""
    return f"pid {lock['holder']['pid']}{stopped}{age}; {lock['says']}"


def _waiting(turn: Mapping[str, Any]) -> None:
    _line("", f"{turn['turn_id']}  {turn['lane']}  {turn['reason']}")

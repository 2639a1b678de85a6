"""One snapshot of a store as lines of text: no wider than asked for, and no more of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rich.cells import cell_len, set_cell_size

from holdfast._core.words import duration, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["HEADS", "frame"]

GAP: Final = "  "
ROWS_MIN: Final = 3  #: Of each table, however low the terminal is.
LEAST: Final = 4  #: Columns of what gets what is left.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

#: Column → cells; 0: it gets an equal share of what the others leave.
_LANES: Final = {"LANE": 16, "RUNNING": 9, "WAITING": 9, "OLDEST": 9, "": 0}
_LEASES: Final = {
    "SESSION": 0, "LANE": 9, "TURN": 14, "AGE": 9, "PROCESS": 13, "DOING": 10,
}  # fmt: skip
_WAITS: Final = {"SESSION": 17, "TURNS": 5, "LANE": 9, "SINCE": 9, "REASON": 0}
#: The first column of each table's head: what is not a row.
HEADS: Final = ("LANE", "SESSION")


def frame(told: Mapping[str, Any], width: int, height: int | None = None) -> list[str]:
    """
    Args:
        told: see `backends.files.look.top.snapshot`.
        width: columns.
        height: lines; None: as many as it takes.
    """
    lanes = [_lane(each) for each in told["lanes"]]
    leases = [_lease(each) for each in told["leases"]]
    waits = [_wait(each) for each in told["waits"]]
    room = None if height is None else max(0, height - 6 - 3 - len(lanes))
    first, second = _shared(len(leases), len(waits), room)
    lines = [
        *_summary(told),
        "",
        *_table(_LANES, lanes, width),
        "",
        *_table(_LEASES, leases[:first], width, more=len(leases) - first),
        "",
        *_table(_WAITS, waits[:second], width, more=len(waits) - second),
    ]
    return [_cut(line, width).rstrip() for line in lines][:height]


def _shared(leases: int, waits: int, room: int | None) -> tuple[int, int]:
    """How many rows each of two tables gets."""
    if room is None or leases + waits <= room:
        return leases, waits
    half = max(ROWS_MIN, room // 2)
    first = min(leases, max(half, room - waits))
    return first, min(waits, max(ROWS_MIN, room - first))


def _summary(told: Mapping[str, Any]) -> list[str]:
    counted = told["last_minute"].items()
    recent = ", ".join(f"{count} {_plural(name, count)}" for name, count in counted if count)
    owed = f"{told['owed']} {_plural('parts', told['owed'])} owed, " if told["owed"] else ""
    now = f"{told['running']} running, {told['waiting']} waiting"
    return [
        f"{told['at'][11:19]} UTC  {told['store']}",
        f"{now}, {owed}{told['sessions']} {_plural('sessions', told['sessions'])}",
        f"last minute: {recent or 'nothing ended, nothing taken over'}",
    ]


def _plural(name: str, count: int) -> str:
    return name[:-1] if count == 1 and name.endswith("s") else name


def _lane(lane: Mapping[str, Any]) -> list[str]:
    full = lane["concurrency"] and lane["running"] >= lane["concurrency"]
    return [
        lane["lane"],
        f"{lane['running']}/{lane['concurrency'] or '-'}",
        str(lane["waiting"]),
        duration(lane["oldest_ms"]) if lane["oldest"] else "-",
        "full" if full else "",
    ]


def _lease(lease: Mapping[str, Any]) -> list[str]:
    life = lease["life"]
    process = "-" if lease["pid"] is None else str(lease["pid"])
    return [
        _key(lease["session"]), lease["lane"], short(lease["turn_id"]),
        duration(lease["age_ms"]),
        process if life == "alive" else f"{process} {life}", _doing(lease),
    ]  # fmt: skip


def _doing(lease: Mapping[str, Any]) -> str:
    if lease["recovering"]:
        return "recovering"
    if lease["abort_requested"]:
        return "ending"
    progress = lease["progress"]
    return str(progress.get("tool") or progress.get("kind") or "-")


def _wait(wait: Mapping[str, Any]) -> list[str]:
    return [
        _key(wait["session"]), str(wait["waiting"]), wait["lane"], duration(wait["waited_ms"]),
        wait["reason"] or "nothing is in its way",
    ]  # fmt: skip


def _table(
    columns: Mapping[str, int], rows: Iterable[Sequence[str]], width: int, *, more: int = 0
) -> list[str]:
    fixed = sum(columns.values()) + len(GAP) * (len(columns) - 1)
    shares = [name for name, cells in columns.items() if not cells]
    share = max(LEAST, (width - fixed) // max(1, len(shares)))
    widths = [cells or share for cells in columns.values()]
    lines = [GAP.join(map(_cut, row, widths)) for row in [list(columns), *rows]]
    return [*lines, f"… and {more} more"] if more > 0 else lines


def _cut(text: str, cells: int) -> str:
    """*text* on one line, in exactly so many cells of a terminal."""
    text = _CONTROL.sub("\ufffd", text)
    if cell_len(text) <= cells:
        return set_cell_size(text, cells)
    return set_cell_size(text, cells - 1) + "…"


def _key(text: str) -> str:
    """A session's key without what nearly all keys begin with."""
    return text.removeprefix("agent:")

"""`holdfast lab report`: contention, as a table and as JSON; `report_svg` has the picture."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.contention import FREE, report
from holdfast._core.telling import SORTS
from holdfast._core.words import duration
from holdfast.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from holdfast.backends.files.reading import FilesReading

    Table = Callable[[Sequence[str], Iterable[Sequence[object]]], None]

__all__ = ["from_store", "print_report", "since_of"]

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGO: Final = re.compile(r"(\d{1,9})([smhd])")


def since_of(text: str | None) -> str:
    """
    ``90m``, ``2h``, ``3d`` ago, or a moment in RFC 3339; as the log writes moments.

    Raises:
        BadRequestError: neither.
    """
    if text is None:
        return ""
    ago = _AGO.fullmatch(text)
    try:
        moment = (
            datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
            if ago
            else datetime.fromisoformat(text)
        )
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        told = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError) as error:
        raise BadRequestError(
            detail=f"--since {text[:80]!r} is neither an age nor a moment",
            hint="say 90m, 2h, 3d, or 2026-11-21T10:00:00Z",
        ) from error
    return told.replace("+00:00", "Z")


def from_store(reading: FilesReading, since: str) -> dict[str, Any]:
    """As `holdfast lab report --json` tells it."""
    found = report(reading.events(), _at_ms, since=since)
    keys: dict[str, str] = {
        session.session_id: " ".join(json.loads(facts["keys"]))
        for session, facts in reading.sessions()
    }
    return {"store": reading.where, "since": since or None, **found.to_json(keys)}


def _at_ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def print_report(told: Mapping[str, Any], say: Callable[[str], None], table: Table) -> None:
    """For people.  *table*: see `cli.output.table`."""
    outcomes = ", ".join(f"{count} {kind}" for kind, count in told["outcomes"].items())
    say(f"{told['events']} events from {told['from'] or '-'} to {told['to'] or '-'}")
    say(f"{told['turns']} turns accepted; ended: {outcomes or 'none'}; "
        f"{told['still_waiting']} still waiting")  # fmt: skip
    say("")
    say("Who waited for whom")
    table(
        ("LANE", "BEHIND", "TURNS", "TOTAL", "P50", "P95", "MAX"),
        ((each["waiting"], named(each["behind"]), *_durations(each))
         for each in told["contention"]),
    )  # fmt: skip
    for title, name in (("Waits", "waits"), ("Runs", "runs")):
        say("")
        say(f"{title} by lane")
        table(
            ("LANE", "TURNS", "TOTAL", "P50", "P95", "MAX"),
            ((lane, *_durations(each)) for lane, each in told[name].items()),
        )
    say("")
    say("What happened")
    table(
        ("WHAT", "TOTAL", "BY LANE"),
        ((sort, told["happened"][sort]["total"], _counts(told["happened"][sort]["by_lane"]))
         for sort in SORTS),
    )  # fmt: skip
    if told["stuck"]:
        say(f"stuck: {_counts(told['stuck'])}")
    say("")
    say("Worst sessions")
    table(
        ("SESSION", "WAITED", *(sort.upper() for sort in SORTS)),
        ((each["key"] or each["session_id"], duration(each["waited_ms"]),
          *(each.get(sort, 0) for sort in SORTS)) for each in told["worst"]),
    )  # fmt: skip


def named(behind: str) -> str:
    """A lane, or what was waited for while the session was free."""
    return "a slot, a runner, quiet" if behind == FREE else behind


def _durations(tally: Mapping[str, int]) -> tuple[object, ...]:
    names = ("total_ms", "p50_ms", "p95_ms", "max_ms")
    return (tally["turns"], *(duration(tally[name]) for name in names))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())

"""The report as a picture: plain SVG, that follows the reader's light or dark."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from holdfast._core.contention import FREE
from holdfast._core.telling import SORTS
from holdfast._core.words import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["drawn"]

WIDTH: Final = 860
LEFT: Final = 24
BARS_AT, BARS_WIDTH = 270, 320  #: Of bars; what they say stands behind them.
LINE: Final = 24  #: Between two lines.
BARS_MAX: Final = 24
RUNS_AT: Final = 540
CHAR_WIDTH: Final = 8

Piece = Callable[[int], str]  #: Drawn when its line's baseline is known.
Line = list[Piece]

_STYLE: Final = """
text { font: 14px system-ui, sans-serif; fill: #1c1c1c; }
.title { font-weight: 600; font-size: 16px; }
.dim { fill: #5c5c5c; }
.paper { fill: #ffffff; }
.bar { fill: #2b6cb0; }
.free { fill: #a0aec0; }
@media (prefers-color-scheme: dark) {
  text { fill: #ececec; }
  .dim { fill: #a8a8a8; }
  .paper { fill: #161616; }
  .bar { fill: #63a4e8; }
  .free { fill: #59636f; }
}
"""


def drawn(told: Mapping[str, Any]) -> str:
    """*told*: see `report.from_store`."""
    lines = list(_lines(told))
    height = LINE * (len(lines) + 1)
    body = "\n".join(piece(LINE * (at + 1)) for at, line in enumerate(lines) for piece in line)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" role="img">\n'
        "<title>Contention by lane</title>\n"
        f"<style>{_STYLE}</style>\n"
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>\n{body}\n</svg>\n'
    )


def _lines(told: Mapping[str, Any]) -> Iterator[Line]:
    yield [_text(LEFT, "Who waited for whom", "title")]
    span = f"{told['from'] or '-'} to {told['to'] or '-'}"
    yield [_text(LEFT, f"{told['turns']} turns, {told['events']} events, {span}", "dim")]
    yield from _bars(told["contention"])
    yield []
    yield [_text(LEFT, "Waits and runs by lane: p50, p95, longest", "title")]
    for lane in sorted(told["waits"].keys() | told["runs"].keys()):
        waits, runs = told["waits"].get(lane), told["runs"].get(lane)
        yield [
            _text(LEFT, lane, until=BARS_AT),
            _text(BARS_AT, f"waited {_durations(waits)}"),
            _text(RUNS_AT, f"ran {_durations(runs)}"),
        ]
    yield []
    yield [_text(LEFT, "What happened", "title")]
    for sort in SORTS:
        happened = told["happened"][sort]
        lanes = ", ".join(f"{lane} {count}" for lane, count in happened["by_lane"].items())
        counted = f"{happened['total']}: {lanes}" if lanes else str(happened["total"])
        yield [_text(LEFT, f"{sort}s"), _text(BARS_AT, counted)]
    yield []
    yield [_text(LEFT, "Worst sessions", "title")]
    for each in told["worst"]:
        befell = ", ".join(f"{each[sort]} {sort}" for sort in SORTS if sort in each)
        waited = f"waited {duration(each['waited_ms'])}" + (f"; {befell}" if befell else "")
        name = each["key"] or each["session_id"]
        yield [_text(LEFT, name, until=RUNS_AT), _text(RUNS_AT, waited)]


def _bars(contention: list[dict[str, Any]]) -> Iterator[Line]:
    most = max((each["total_ms"] for each in contention), default=0)
    for each in contention[:BARS_MAX]:
        wide = max(1, BARS_WIDTH * each["total_ms"] // max(1, most))
        kind = "free" if each["behind"] == FREE else "bar"
        said = f"{duration(each['total_ms'])}, {each['turns']} turn(s)"
        label = f"{each['waiting']} behind {each['behind']}"
        if each["behind"] == FREE:
            label = f"{each['waiting']}: slot, runner, quiet"
        yield [
            _text(LEFT, label, until=BARS_AT),
            _bar(kind, wide),
            _text(BARS_AT + wide + 8, said, "dim"),
        ]
    if not contention:
        yield [_text(LEFT, "nobody waited", "dim")]


def _bar(kind: str, wide: int) -> Piece:
    def at(y: int) -> str:
        return f'<rect class="{kind}" x="{BARS_AT}" y="{y - 13}" width="{wide}" height="16"/>'

    return at


def _text(x: int, text: str, kind: str = "", *, until: int = WIDTH) -> Piece:
    """*until*: where what comes next begins."""
    printable = "".join(char if char.isprintable() else "\ufffd" for char in text)
    limit = (until - x) // CHAR_WIDTH
    short = printable if len(printable) <= limit else f"{printable[: limit - 1]}…"
    marked = f' class="{kind}"' if kind else ""

    def at(y: int) -> str:
        whole = f"<title>{escape(printable)}</title>" if short != printable else ""
        return f'<text{marked} x="{x}" y="{y}">{escape(short)}{whole}</text>'

    return at


def _durations(tally: Mapping[str, int] | None) -> str:
    if tally is None:
        return "-"
    return ", ".join(duration(tally[name]) for name in ("p50_ms", "p95_ms", "max_ms"))

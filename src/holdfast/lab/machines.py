"""
`docs/machines.md`, drawn from the tables themselves.

    python -m holdfast.lab.machines > docs/machines.md

A test compares the two, so the picture cannot lie about the code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from holdfast._core import attempt, delivery, fence, staleness, turns, window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["document"]

_HEAD: Final = """\
# The machines

Drawn from the tables in `src/holdfast/_core` by `python -m holdfast.lab.machines`; do not edit.
An arrow is labelled with the signal, and after the slash with the effects that it asks for.
What is not drawn cannot happen: a blank cell is a bug in the caller.
"""

Arrows: TypeAlias = "Iterable[tuple[str, str, str]]"  #: (from, to, label)


def document() -> str:
    """The whole page, in Markdown with Mermaid diagrams."""
    parts = [
        _HEAD,
        _section("A prompt window", "_core/window.py", window.__doc__),
        _legend("Holds the write lock", (state.name for state in window.HOLDS)),
        _diagram("HELD", _machine(window.TABLE), (s.name for s in window.FINAL)),
        _section("A lone attempt", "_core/attempt.py", attempt.__doc__),
        _legend("Holds the write lock", (state.name for state in attempt.HOLDS)),
        _legend("Has a place in line", (state.name for state in attempt.HAS_PLACE)),
        "`DISPOSE` leads from everywhere to `GONE`, by `LEAVING` where the lock is held.\n",
        _diagram("NEW", _machine(attempt.TABLE), (s.name for s in attempt.FINAL)),
        _section("A turn", "_core/turns.py", turns.__doc__),
        _diagram("accepted", _turns(), ["done"]),
        _section("A delivery", "_core/delivery.py", delivery.__doc__),
        _diagram(
            "pending", _deliveries(), [s.value for s in delivery.State if not delivery.TABLE[s]]
        ),
        _section("The fence", "_core/fence.py", fence.__doc__),
        _fence(),
        _section("Staleness of a claim", "_core/staleness.py", staleness.__doc__),
        _staleness(),
    ]
    return "\n".join(parts)


def _section(title: str, where: str, doc: str | None) -> str:
    assert doc is not None
    first = " ".join(doc.strip().split("\n\n")[0].split())
    return f"\n## {title}\n\n{first} (`{where}`)\n"


def _legend(what: str, names: Iterable[str]) -> str:
    return f"{what}: {', '.join(f'`{name}`' for name in sorted(names))}.\n"


def _diagram(start: str, arrows: Arrows, final: Iterable[str]) -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
    lines += [f"    {here} --> {there}: {label}" for here, there, label in arrows]
    lines += [f"    {name} --> [*]" for name in sorted(final)]
    return "\n".join([*lines, "```", ""])


def _machine(table: Mapping[Any, Mapping[Any, tuple[Any, tuple[Any, ...]]]]) -> Arrows:
    for state, row in table.items():
        for signal, (landing, effects) in row.items():
            asked = ", ".join(effect.name for effect in effects)
            yield state.name, landing.name, signal.name + (f" / {asked}" if asked else "")


def _turns() -> Iterator[tuple[str, str, str]]:
    for state, row in turns.TABLE.items():
        for event, cell in row.items():
            said = f" ({', '.join(cell.outcomes)})" if cell.outcomes else ""
            count = f" {cell.attempts:+d} attempt" if cell.attempts else ""
            yield state.value, cell.to.value, f"{event.value}{count}{said}"


def _deliveries() -> Iterator[tuple[str, str, str]]:
    for state, row in delivery.TABLE.items():
        for event, landing in row.items():
            yield state.value, landing.value, event.value


def _fence() -> str:
    lines = [
        "| row | same file | size | same mtime | same tail | verdict | says |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in fence.ROWS:
        sizes = " or ".join(size.value for size in row.sizes)
        cells = [row.label, _cell(row.same_file), sizes, _cell(row.same_mtime)]
        cells += [_cell(row.same_tail), f"**{row.verdict}**", row.why or "nothing has happened"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cell(value: bool | None) -> str:
    return "" if value is None else ("yes" if value else "no")


def _staleness() -> str:
    lines = [
        "The first row whose facts are all so decides.",
        "",
        "| row | facts | verdict | says |",
    ]
    lines.append("|---|---|---|---|")
    for row in staleness.ROWS:
        facts = "; ".join(f"{fact} = {_values(values)}" for fact, values in row.cells)
        lines.append(f"| {row.label} | {facts} | **{row.verdict}** | {row.says} |")
    lines += ["", "| reason | means |", "|---|---|"]
    lines += [f"| `{code}` | {means} |" for code, (_, means) in staleness.REASONS.items()]
    return "\n".join([*lines, ""])


def _values(values: tuple[object, ...]) -> str:
    names = {True: "yes", False: "no", None: "?"}
    said = [
        names[value] if value is None or isinstance(value, bool) else str(value)
        for value in values
    ]
    return " or ".join(said)


if __name__ == "__main__":
    print(document(), end="")

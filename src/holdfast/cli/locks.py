"""`holdfast locks`: who has which write lock, and what a waiter would get.  Reading only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output

if TYPE_CHECKING:
    from holdfast.backends.files.look.locks import LockSeen

__all__ = ["age_of", "app", "holder_of"]

_STYLES: Final = {"wait": "green", "report": "yellow", "reclaim": "dim"}

app = typer.Typer(
    help="""\
Write locks: list, show.  Nothing is locked or changed.

\b
holdfast locks list
holdfast locks show state/agents/main/sessions/ID.jsonl

The verdict is what a waiter gets: wait (its turn comes), report (it is told at its deadline,
and nothing is removed: age alone never removes a lock), reclaim (its owner is proven dead;
the next waiter replaces it).
"""
)


@app.command("list")
def list_(
    store: output.Store = None, config: output.Config = None, as_json: output.Json = False
) -> None:
    """List every write lock of a store: holder, age, verdict, what a waiter would get."""
    from holdfast.backends.files.look.locks import locks_in

    stale_ms = output.settings(config).write_lock_stale_ms
    found = list(locks_in(output.opened(store).where, stale_ms=stale_ms))
    if as_json:
        output.emit({"locks": [seen.to_json() for seen in found]})
        return
    output.table(
        ("LOCK", "HOLDER", "AGE", "WAITING", "VERDICT", "ROW", "WHY"),
        (
            (seen.path, holder_of(seen), age_of(seen.age_ms), seen.waiting, seen.verdict,
             seen.row, ", ".join(seen.reasons) or seen.says)
            for seen in found
        ),
    )  # fmt: skip
    if not found:
        output.note("holdfast: nobody has a write lock")


@app.command()
def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A transcript, anywhere.")],
    config: output.Config = None,
    as_json: output.Json = False,
) -> None:
    """Show the write lock of one transcript, in or outside a store."""
    from holdfast.backends.files.look.locks import lock_of

    seen = lock_of(file, stale_ms=output.settings(config).write_lock_stale_ms)
    if as_json:
        output.emit({"locks": [] if seen is None else [seen.to_json()]})
    elif seen is None:
        output.say(f"{file}: nobody has its write lock")
    else:
        _print(seen)


def _print(seen: LockSeen) -> None:
    verdict = output.paint(seen.verdict, _STYLES[seen.verdict])
    told: dict[str, Any] = {
        "transcript": seen.path,
        "holder": holder_of(seen),
        "host": seen.host,
        "run": seen.run_id,
        "lane": seen.lane,
        "age": age_of(seen.age_ms),
        "promised": age_of(seen.promised_ms),
        "latch": _latch(seen),
        "waiting": seen.waiting,
        "verdict": verdict + ("" if seen.row is None else f", row {seen.row}: {seen.says}"),
        "reasons": ", ".join(seen.reasons),
        "so": seen.outlook,
    }
    for name, value in told.items():
        if value is not None and value != "":
            output.say(f"{name:<12}{value}")


def holder_of(seen: LockSeen) -> str:
    if seen.pid is None:
        return "unknown"
    return f"pid {seen.pid}" + (" (stopped)" if seen.frozen else "")


def age_of(milliseconds: int | None) -> str | None:
    """For people: ``0.3 s``, ``4 min``, ``2 h``, ``3 d``."""
    if milliseconds is None:
        return None
    seconds = milliseconds / 1000
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return (
                f"{seconds / size:.1f} {unit}"
                if unit == "s"
                else f"{seconds // size:.0f} {unit}"
            )
    return f"{seconds // 86_400:.0f} d"


def _latch(seen: LockSeen) -> str:
    if seen.latch == "unknown":
        return "cannot be seen from this pid namespace"
    if seen.latch == "free":
        return "held by nobody"
    return f"held by pid {', '.join(map(str, seen.latched_by))}"

"""`holdfast bench`: how fast is it here?"""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from holdfast.cli import output

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["bench"]


class What(StrEnum):
    """What can be measured."""

    LOCK = "lock"
    APPEND = "append"
    OPEN = "open"
    TURN = "turn"
    ADMISSION = "admission"
    SERVE = "serve"
    START = "start"
    ALL = "all"


_WHERE: Final = {
    What.LOCK: "bench_lock",
    What.APPEND: "bench_size",
    What.OPEN: "bench_size",
    What.TURN: "bench_turn",
    What.ADMISSION: "bench_admission",
    What.SERVE: "bench_serve",
    What.START: "bench_start",
}


def bench(
    what: Annotated[What, typer.Argument(help="What to measure.")] = What.ALL,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the rounds.")] = False,
    store: Annotated[
        str | None, typer.Option("--store", metavar="DIR", help="Where to measure; scratch.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """
    Measure on this machine.  The full set takes some minutes, --quick less than one.

    Works in a scratch directory (under DIR, if given) and removes it.

    \b
    holdfast bench lock --quick
    holdfast bench all --store /srv/disk --json
    """
    wanted = [each for each in What if each is not What.ALL] if what is What.ALL else [what]
    found: dict[str, Any] = {}
    for each in wanted:
        found[each.value] = _measure(each, store, quick=quick)
        if not as_json:
            output.say(output.paint(each.value, "bold"))
            _print(found[each.value])
    if as_json:
        output.emit(found if what is What.ALL else found[what.value])


def _measure(what: What, directory: str | None, *, quick: bool) -> Mapping[str, Any]:
    module = import_module(f"holdfast.lab.{_WHERE[what]}")  # Loaded on use.
    measure = getattr(module, f"bench_{what.value}")
    if what is What.START:
        found = measure(quick=quick, report=output.note)
    else:
        found = measure(directory, quick=quick, report=output.note)
    return cast("Mapping[str, Any]", found)


def _print(found: Mapping[str, Any], indent: str = "  ") -> None:
    for name, value in found.items():
        if isinstance(value, dict):
            inside = "  ".join(f"{key} {each}" for key, each in value.items())
            output.say(f"{indent}{name:<16}{inside}")
        elif isinstance(value, list):
            for each in value:
                _print({name: each}, indent)
        else:
            output.say(f"{indent}{name:<16}{value}")

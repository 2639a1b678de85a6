"""`holdfast top`: lanes, sessions, leases and waits, live.  Reading only."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from holdfast.cli import output

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["top"]

PLAIN_COLUMNS: Final = 80  #: Where nobody says how wide it is.


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once, and leave.")] = False,
    every: Annotated[
        float, typer.Option(help="Seconds between two looks.", min=0.1, max=3600)
    ] = 1.0,
    store: output.Store = None,
    config: output.Config = None,
    as_json: output.Json = False,
) -> None:
    """
    Watch lanes, sessions, leases and waits, and what was taken over in the last minute.

    On a terminal it refreshes until q or Ctrl-C; elsewhere it prints one plain table.  With
    --json one object a look, and with --once one object.

    \b
    holdfast top
    holdfast top --once
    holdfast top --json --every 5
    """
    from holdfast.backends.files.look.top import snapshot

    settings, reading = output.settings(config), output.opened(store)

    def look() -> dict[str, Any]:
        return snapshot(reading, settings.lanes)

    if as_json:
        _stream(look, None if once else every)
    elif once or not (output.is_terminal(sys.stdout) and output.is_terminal(sys.stdin)):
        from holdfast.cli._top.frame import frame

        width = shutil.get_terminal_size((PLAIN_COLUMNS, 0)).columns
        for line in frame(look(), width):
            output.say(line)
    else:
        from holdfast.cli._top.screen import watch

        watch(look, every)


def _stream(look: Callable[[], dict[str, Any]], every_s: float | None) -> None:
    output.emit(look())
    while every_s is not None:
        time.sleep(every_s)
        output.emit(look())

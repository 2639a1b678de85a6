"""The live view of `holdfast top`: the terminal's other screen, a frame a second, one key."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from holdfast.cli._top.frame import HEADS, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["watch"]

LEAVE: Final = ("q", "Q", "\x03", "\x04", "")
HELP: Final = "q leaves"


def watch(look: Callable[[], dict[str, Any]], every_s: float) -> None:
    """
    Until a person leaves, by q or Ctrl-C.

    Args:
        look: what is to be shown now.
    """
    console = Console(highlight=False)
    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            until_s = time.monotonic() + every_s
            live.update(_drawn(look(), console), refresh=True)
            if _left(until_s):
                return


def _drawn(told: dict[str, Any], console: Console) -> Group:
    width, height = console.size
    lines = frame(told, width, max(1, height - 1))
    drawn = [Text(line, style=_style(line), no_wrap=True) for line in lines]
    drawn += [Text("")] * (height - 1 - len(lines))
    return Group(*drawn, Text(HELP, style="dim", no_wrap=True))


def _style(line: str) -> str:
    return "bold" if line.split(" ", 1)[0] in HEADS else ""


def _left(until_s: float) -> bool:
    """Wait for a key that leaves, or for the next frame's time."""
    while (left_s := until_s - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left_s)[0] and sys.stdin.read(1) in LEAVE:
            return True
    return False


@contextmanager
def _keys() -> Iterator[None]:
    """Keys as they are pressed, unseen; the terminal as it was afterwards."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)

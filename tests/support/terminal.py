"""A real terminal for a command: a pty, keys in, and the screen that a person would see."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

WITHIN_S = 30.0
ROWS, COLUMNS = 50, 100
CTRL_A, CTRL_C, CTRL_D = "\x01", "\x03", "\x04"

#: Makes the pty its controlling terminal (the first that a session's leader opens), then runs.
_CHILD = """
import os, sys
fd = os.open(sys.argv.pop(1), os.O_RDWR)
for standard in (0, 1, 2):
    os.dup2(fd, standard)
os.close(fd)
os.execv(sys.executable, [sys.executable, "-m", "holdfast", *sys.argv[1:]])
"""
_PARTS = re.compile(
    r"\x1b\[([?\d;]*)([A-Za-z@])|\x1b[()]?.|[\x00-\x1f]|[^\x00-\x1f\x1b]+", re.DOTALL
)


_UNFINISHED = re.compile(r"\x1b(\[[?\d;]*|[()])?\Z")


class Display:
    """What a terminal shows of what was written to it; as much of one as readline needs."""

    def __init__(self, rows: int = ROWS, columns: int = COLUMNS) -> None:
        self._rows, self._columns = rows, columns
        self._cells: list[list[str]] = [[]]  #: All rows ever, so that what scrolled off stays.
        self.row = self.column = 0
        self._rest = ""

    @property
    def lines(self) -> list[str]:
        return ["".join(cells).rstrip() for cells in self._cells]

    def feed(self, text: str) -> None:
        text = self._rest + text
        cut = _UNFINISHED.search(text)
        at = len(text) if cut is None else cut.start()
        text, self._rest = text[:at], text[at:]
        for part in _PARTS.finditer(text):
            self._part(part)

    def _part(self, part: re.Match[str]) -> None:
        whole = part.group()
        if part.group(2):
            self._csi(part.group(1), part.group(2))
        elif whole == "\r":
            self.column = 0
        elif whole == "\n":
            self._down()
        elif whole == "\b":
            self.column = max(0, self.column - 1)
        elif whole[0] >= " ":
            for char in whole:
                self._put(char)

    def _csi(self, given: str, what: str) -> None:
        number = int(given) if given.isdecimal() else None
        count = number or 1
        cells = self._cells[self.row]
        match what:
            case "A":
                self.row = max(0, self.row - count)
            case "B":
                self.row = min(len(self._cells) - 1, self.row + count)
            case "C":
                self.column = min(self._columns - 1, self.column + count)
            case "D":
                self.column = max(0, self.column - count)
            case "G":
                self.column = count - 1
            case "H":  # Home; a whole screen is drawn from there, not a cell of it.
                self.row = self.column = 0
            case "K" if not number:
                del cells[self.column :]
            case "K":
                cells[:] = [" "] * self.column
            case "J":
                del cells[self.column :]
                del self._cells[self.row + 1 :]
            case "P":
                del cells[self.column : self.column + count]
            case "@":
                self._fill()
                cells[self.column : self.column] = [" "] * count
            case "m" | "h" | "l":
                pass
            case _:
                raise AssertionError(f"this terminal does not know CSI {given} {what}")

    def _fill(self) -> None:
        cells = self._cells[self.row]
        cells += [" "] * (self.column - len(cells))

    def _put(self, char: str) -> None:
        if self.column >= self._columns:
            self.column = 0
            self._down()
        self._fill()
        self._cells[self.row][self.column : self.column + 1] = [char]
        self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self._cells):
            self._cells.append([])


class Terminal:
    """`holdfast …` in a terminal of its own.  A context manager that leaves nothing behind."""

    def __init__(
        self, *words: str, store: Path, env: Mapping[str, str] | None = None,
        columns: int = COLUMNS,
    ) -> None:  # fmt: skip
        plain = {n: v for n, v in os.environ.items() if not n.startswith("HOLDFAST_")}
        home = {"HOME": str(store.parent), "XDG_STATE_HOME": str(store.parent / "xdg")}
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        self.modes = termios.tcgetattr(slave)
        self._slave = slave  # Kept open: the terminal outlives the command, as a person's does.
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, os.ttyname(slave), *words],
            env={
                **plain, **home, "HOLDFAST_STORE": str(store), "TERM": "xterm",
                "INPUTRC": os.devnull, **(env or {}),
            },
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self.display = Display(ROWS, columns)
        self.raw = ""  #: Everything that was written.
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def enter(self, line: str) -> None:
        self.type(f"{line}\r")

    def until(self, condition: Callable[[], bool], what: str = "what was waited for") -> None:
        """Read on until *condition* holds; a deadline ends it."""
        until_s = time.monotonic() + WITHIN_S
        while not condition():
            left_s = until_s - time.monotonic()
            assert left_s > 0, f"not within {WITHIN_S} s: {what}\n{self.shown}"
            if not self._read(left_s):
                assert condition(), f"it ended before {what}\n{self.shown}"
                return

    def until_shown(self, *texts: str) -> None:
        """Until each of *texts* stands on the screen."""
        self.until(lambda: all(text in self.shown for text in texts), repr(texts))

    def until_prompt(self, line: str = "you>") -> None:
        """Until the last line, where the cursor is, is *line*."""
        self.until(lambda: self.cursor_line == line, f"the line {line!r}")

    def read_to_end(self) -> int:
        """Until it has ended.  Returns its exit code."""
        until_s = time.monotonic() + WITHIN_S
        while self.process.poll() is None:
            assert time.monotonic() < until_s, f"it does not end\n{self.shown}"
            self._read(0.1)
        while self._read(0):
            pass
        return self.process.returncode

    @property
    def shown(self) -> str:
        return "\n".join(self.display.lines)

    @property
    def cursor_line(self) -> str:
        return self.display.lines[self.display.row]

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal's modes are those it began with."""
        return termios.tcgetattr(self._slave) == self.modes

    def _read(self, within_s: float) -> bool:
        ended = self.process.poll() is not None
        if not select.select([self._master], [], [], 0 if ended else min(within_s, 0.1))[0]:
            return not ended
        text = self._decoder.decode(os.read(self._master, 65536))
        self.raw += text
        self.display.feed(text)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(WITHIN_S)
        os.close(self._master)
        os.close(self._slave)

"""
A terminal that two threads need: one line being typed, and what is printed above it.

The main thread alone reads and prints.  While it sits in readline, the loop thread *nudges*
it with a signal; readline runs signal handlers between two keys and never inside of one, so
the handler may clear the line, print, and have the line drawn again.  A signal may fall
between two looks of readline and go unheard.  A nudge is repeated until everything has been
shown.  Of any other signal, Ctrl-C above all, the loop thread hears through the wake-up
descriptor; it then wakes readline with SIGWINCH, which the interpreter has no handler of its
own for: a second handler must not run while the first one's exception is on its way.

    loop thread:  tell ─▶ queue ─▶ nudge ─┐ (again every NUDGE_S while something is left)
    main thread:  select ◀── EINTR ───────┘ ─▶ handler: clear line, print, redraw ─▶ select
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import shutil
import signal
import socket
import sys
import termios
import threading
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.cli._chat.history import History
    from holdfast.cli._chat.told import Told

__all__ = [
    "Interrupted", "Left", "LineCancelled", "Screen", "ended_by_signals", "is_interactive",
    "tame",
]  # fmt: skip

#: Ignored by every process that does not ask for it: a late nudge hurts nobody.
NUDGE: Final = signal.SIGURG
NUDGE_S: Final = 0.05
WAKE: Final = signal.SIGWINCH
WAKES: Final = 3
_STDIN: Final = 0
#: What may not reach a terminal from a model or a stranger; tab and newline stay.
_STEERS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def tame(text: str) -> str:
    """*text* without anything that could steer a terminal, colours included."""
    return _STEERS.sub("\ufffd", text.replace("\r\n", "\n"))


class Interrupted:
    """In the queue: Ctrl-C was pressed while no line was being typed."""


class LineCancelled(Exception):  # noqa: N818
    """Ctrl-C at a prompt; `text` is what had been typed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Left(BaseException):
    """SIGTERM or SIGHUP: clean up and go."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Screen:
    """
    Main thread only, but for `tell`.

    Args:
        show: prints one thing that was told; the cursor stands at the beginning of a line.
        history: lines to offer again, and where new ones go.
    """

    def __init__(self, show: Callable[[Told], None], history: History) -> None:
        self._show, self._history = show, history
        self._queue: SimpleQueue[Told | Interrupted] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main = threading.get_ident()
        self._line = _Line()
        self._prompt: str | None = None  #: Not None: a line is asked for.
        self._nudging = False
        self._due = 0  #: A signal has come: so often readline is still to be woken for it.
        self._cancelled: str | None = None  #: What had been typed at Ctrl-C.
        self._ended: int | None = None  #: The signal that asked for the end.

    # ---------------------------------------------------------------------- its life

    @contextmanager
    def taken(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Handle signals and the terminal's modes; everything is put back at the end."""
        self._loop = loop
        modes = termios.tcgetattr(_STDIN)
        handlers: dict[int, Any] = {
            NUDGE: self._on_nudge,
            signal.SIGINT: self._on_interrupt,
            signal.SIGTERM: self._on_end,
            signal.SIGHUP: self._on_end,
        }
        woken, wakes = socket.socketpair()
        woken.setblocking(False)
        wakes.setblocking(False)
        before = {number: signal.signal(number, each) for number, each in handlers.items()}
        self._line.begin(self._history.load())
        self._modes, self._quiet = modes, [*modes[:3], modes[3] & ~termios.ECHO, *modes[4:]]
        self._set(self._quiet)
        loop.call_soon_threadsafe(loop.add_reader, woken, self._heard, woken)
        wakes_before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            self._prompt = None
            signal.set_wakeup_fd(wakes_before)
            asyncio.run_coroutine_threadsafe(_unread(woken), loop).result()
            woken.close()
            wakes.close()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._set(modes)

    @property
    def width(self) -> int:
        return shutil.get_terminal_size().columns

    # ------------------------------------------------------------------------- telling

    def tell(self, thing: Told) -> None:
        """In the loop's thread.  Shown at once if a line is being typed, else by `next`."""
        self._queue.put(thing)
        self._keep_nudging()

    def next(self) -> Told | Interrupted:
        """The next thing told; waits for it.  What is typed meanwhile waits unseen."""
        return self._queue.get()

    def ask(self, prompt: str, invisible: str = "") -> str:
        """
        One line.  What is told meanwhile is shown above it.

        Args:
            prompt: what people see.
            invisible: the escape sequence that paints it, if it is painted.

        Raises:
            EOFError: Ctrl-D.
            LineCancelled: Ctrl-C.
            UnicodeDecodeError: what was typed is no text.
        """
        while not self._queue.empty():
            self._show_told()
        self._set(self._modes)
        drawn = f"\001{invisible}\002{prompt}\001\x1b[0m\002" if invisible else prompt
        try:
            self._prompt = prompt
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._keep_nudging)
            line = input(drawn)
        except BaseException:
            # By what has happened, not by what came out: between a handler and here the
            # interpreter may run a second handler, and put another exception in its place.
            if self._ended is not None:
                raise Left(self._ended) from None
            cancelled, self._cancelled = self._cancelled, None
            if cancelled is not None:
                raise LineCancelled(cancelled) from None
            raise
        finally:
            self._prompt = None
            self._set(self._quiet)
        if self._history.add(line):
            self._line.remember(line)
        return line

    # ------------------------------------------------------------------------- signals

    def _heard(self, woken: socket.socket) -> None:
        """In the loop's thread: some signal has come."""
        if any(number not in {NUDGE, WAKE} for number in woken.recv(4096)):
            self._due = WAKES
            self._wake()

    def _wake(self) -> None:
        """In the loop's thread."""
        if self._due and self._prompt is not None:
            self._due -= 1
            signal.pthread_kill(self._main, WAKE)
            assert self._loop is not None
            self._loop.call_later(NUDGE_S, self._wake)

    def _keep_nudging(self) -> None:
        """In the loop's thread."""
        if self._nudging or self._prompt is None or self._queue.empty():
            return
        signal.pthread_kill(self._main, NUDGE)
        self._nudging = True
        assert self._loop is not None
        self._loop.call_later(NUDGE_S, self._nudge_again)

    def _nudge_again(self) -> None:
        self._nudging = False
        self._keep_nudging()

    def _on_nudge(self, number: int, frame: object) -> None:
        del number, frame
        if self._prompt is None or not self._is_typing() or self._queue.empty():
            return
        self._line.clear()
        while not self._queue.empty():
            self._show_told()
        self._line.draw(self._prompt)

    def _show_told(self) -> None:
        thing = self._queue.get()
        if not isinstance(thing, Interrupted):  # Of a wait that was over by then.
            self._show(thing)
            sys.stdout.flush()

    def _on_interrupt(self, number: int, frame: object) -> None:
        del number, frame
        if self._prompt is None:
            self._queue.put(Interrupted())
            return
        self._cancelled = self._line.text()
        raise KeyboardInterrupt

    def _on_end(self, number: int, frame: object) -> None:
        self._ended = number
        _on_end(number, frame)

    def _is_typing(self) -> bool:
        """Whether readline has the terminal now: not a moment before, nor after."""
        return not termios.tcgetattr(_STDIN)[3] & termios.ICANON

    def _set(self, modes: list[Any]) -> None:
        try:
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, modes)
        except termios.error:  # The terminal has gone; SIGHUP is on its way.
            return


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `Left` in the main thread, so that what is held goes back."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, _on_end)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


async def _unread(woken: socket.socket) -> None:
    asyncio.get_running_loop().remove_reader(woken)


def _on_end(number: int, frame: object) -> None:
    del frame
    raise Left(number)


class _Line:
    """
    The line being typed.

    GNU readline can take it off the screen and draw it again, wherever its cursor stands and
    however many rows it fills; but the interpreter passes on only part of that, so the rest is
    asked of the library itself.  Where it cannot be had, one row with its cursor at the end is
    assumed.
    """

    def __init__(self) -> None:
        self._readline: Any = None
        self._library: Any = None
        try:
            import readline
        except ImportError:
            return
        self._readline = readline
        try:
            library = ctypes.CDLL(getattr(readline, "__file__", None))
            for name in ("rl_clear_visible_line", "rl_forced_update_display", "fflush"):
                getattr(library, name)
        except (OSError, AttributeError):
            return
        library.fflush.argtypes = [ctypes.c_void_p]
        self._library = library

    def begin(self, lines: list[str]) -> None:
        if self._readline is None:
            return
        # A pasted text is one message, with its line breaks.
        self._readline.parse_and_bind("set enable-bracketed-paste on")
        self._readline.set_auto_history(False)
        for line in lines:
            self.remember(line)

    def remember(self, line: str) -> None:
        if self._readline is not None:
            self._readline.add_history(line)

    def text(self) -> str:
        return str(self._readline.get_line_buffer()) if self._readline is not None else ""

    def clear(self) -> None:
        if self._library is not None:
            self._library.rl_clear_visible_line()
            self._library.fflush(None)
        _write("\r\x1b[K")

    def draw(self, prompt: str) -> None:
        if self._library is not None:
            self._library.rl_forced_update_display()
        else:
            _write(f"{prompt}{self.text()}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def is_interactive() -> bool:
    """Whether a person sits at both ends."""
    return os.isatty(_STDIN) and os.isatty(1)

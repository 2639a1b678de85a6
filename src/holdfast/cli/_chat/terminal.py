"""A chat with a person at a terminal: prompts, commands, and how everything looks."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from holdfast.cli import output
from holdfast.cli._chat import told
from holdfast.cli._chat.lines import Command, Message, joined, read
from holdfast.cli._chat.screen import Interrupted, LineCancelled, Screen, tame

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from holdfast.cli._chat.exchanges import Exchange
    from holdfast.cli._chat.history import History
    from holdfast.cli._chat.talk import Talk

__all__ = ["Terminal"]

INTERRUPTED: Final = 130
PROMPT, MORE = "you> ", "...> "
SHOWN_AT_START: Final = 3
OTHERS_CHARS_MAX: Final = 8_000  #: What another program has pasted must not bury the talk.
_HELP: Final = """\
/help         this
/who          the session, who answers, what waits (also /status)
/history [N]  the last N exchanges (10)
/cancel       end what you sent and has no reply yet
/quit         leave (also Ctrl-D)
A backslash at the end of a line goes on in the next.  //text sends "/text".
Ctrl-C waits no longer for a reply, which still comes; drops a line; leaves at an empty one."""


class Terminal:
    """
    The main thread's half of a chat.

    Args:
        history: what was typed before.
    """

    def __init__(self, history: History) -> None:
        self.screen = Screen(self._show, history)
        self._shown = ""  #: Text of the reply that stands on the terminal.
        self._at_start = True  #: The cursor stands at the beginning of a line.
        self._status = ""  #: A line that is written over by the next thing.
        self._colours = output.paint("x", "dim") != "x"

    def run(self, talk: Talk, loop: asyncio.AbstractEventLoop, greeting: str) -> int:
        """
        Until the person leaves.  Returns the exit code.

        Raises:
            Left: a signal asked for the end.
        """
        with self.screen.taken(loop), _logs_to(self.screen, loop):
            self._line(output.paint(f"{greeting}  /help lists the commands.", "dim"))
            if not self._begin(talk, loop):
                return INTERRUPTED
            while True:
                try:
                    typed = self._typed()
                except EOFError:
                    self._line()
                    return 0
                except LineCancelled as cancelled:
                    self._line()
                    if not cancelled.text.strip():
                        return INTERRUPTED
                    continue
                if typed is None:
                    continue
                if isinstance(typed, Command) and typed.name == "quit":
                    return 0
                self._do(typed, talk, loop)

    # -------------------------------------------------------------------------- typing

    def _typed(self) -> Message | Command | None:
        lines: list[str] = []
        while True:
            try:
                lines.append(self._asked(MORE if lines else PROMPT))
                text = joined(lines)
                if text is not None:
                    return read(text)
            except LineCancelled as cancelled:
                if not lines:
                    raise
                raise LineCancelled("\n".join([*lines, cancelled.text])) from None
            except UnicodeError:
                output.note("holdfast: that was not UTF-8; nothing was sent")
                return None

    def _asked(self, prompt: str) -> str:
        line = self.screen.ask(prompt, "\x1b[1m" if self._colours else "")
        line.encode()  # What cannot be sent is not a line.
        return line

    def _do(
        self, typed: Message | Command, talk: Talk, loop: asyncio.AbstractEventLoop
    ) -> None:
        match typed:
            case Message(text):
                self._shown = ""
                loop.call_soon_threadsafe(talk.say, text)
                self._until_done(lambda: loop.call_soon_threadsafe(talk.leave))
            case Command(error=str(error)):
                self._wrong(error)
            case Command("help", _):
                self._line(_HELP)
            case Command("who" | "status", _):
                self._ask(loop, talk.facts())
            case Command("history", count):
                self._ask(loop, talk.history(count or 10))
            case Command("cancel", _):
                self._ask(loop, talk.cancel())

    def _begin(self, talk: Talk, loop: asyncio.AbstractEventLoop) -> bool:
        """False: Ctrl-C came first."""
        begun = asyncio.run_coroutine_threadsafe(talk.begin(SHOWN_AT_START), loop)
        begun.add_done_callback(lambda _: self.screen.tell(told.Done()))
        self._until_done(begun.cancel)
        if begun.cancelled():
            return False
        begun.result()
        return True

    def _ask(self, loop: asyncio.AbstractEventLoop, doing: Coroutine[None, None, None]) -> None:
        asked = asyncio.run_coroutine_threadsafe(doing, loop)
        self._until_done(asked.cancel)

    def _until_done(self, interrupt: Callable[[], object]) -> None:
        """Show what is told until `Done`."""
        while not isinstance(thing := self.screen.next(), told.Done):
            if isinstance(thing, Interrupted):
                interrupt()
            else:
                self._show(thing)
                sys.stdout.flush()
        self._clear_status()
        self._fresh_line()

    # --------------------------------------------------------------------------- showing

    def _show(self, thing: told.Told) -> None:  # noqa: C901  One case a kind.
        match thing:
            case told.OwnAccepted(accepted):
                self._say_place(accepted.position, accepted.waiting_for)
            case told.OwnPosition(_, position, waiting_for):
                self._say_place(position, waiting_for)
            case told.OwnText(_, text):
                self._stream(text)
            case told.OwnVoid(_, reason):
                self._void(reason)
            case told.OwnTool(_, name, state):
                self._tool(name, state)
            case told.OwnEnded(outcome):
                self._end(dict(outcome))
            case told.Other():
                self._other(thing)
            case told.Recent(exchanges):
                self._recent(exchanges)
            case told.FactsTold(facts):
                self._line(f"session  {facts.session_id or 'not begun yet'}")
                self._line(f"answers  {tame(facts.answers)}")
                self._line(f"running  {facts.running or 'nothing'}")
                self._line(f"waiting  {facts.waiting}")
            case told.Note(text):
                self._line(output.paint(output.cut(text, 400), "dim"))
            case told.Failed(error):
                self._wrong(output.error_line(error))
            case told.EntryTold() | told.Done():
                pass

    def _stream(self, text: str) -> None:
        self._clear_status()
        self._shown += text
        shown = tame(text)
        sys.stdout.write(shown)
        self._at_start = shown.endswith("\n") if shown else self._at_start

    def _void(self, reason: str | None) -> None:
        if self._shown:
            why = f" ({output.cut(reason)})" if reason else ""
            self._line(
                output.paint(f"-- asked again{why}: the text above is void --", "yellow")
            )
            self._shown = ""

    def _tool(self, name: str, state: str) -> None:
        line = f"[{output.cut(name)}: {output.cut(state)}]"
        if state == "started":
            self._set_status(line)
        else:
            self._line(output.paint(line, "dim"))

    def _end(self, outcome: dict[str, str | None]) -> None:
        text, kind = outcome.get("text"), outcome.get("outcome")
        if text is not None:
            if self._shown and not text.startswith(self._shown):
                self._void(None)
            self._stream(text[len(self._shown) :])
        self._clear_status()
        self._fresh_line()
        if kind != "replied":
            why = f" ({outcome['reason']})" if outcome.get("reason") else ""
            hint = f": {outcome['hint']}" if outcome.get("hint") else ""
            self._wrong(f"{kind}{why}{hint}")
        self._shown = ""

    def _other(self, other: told.Other) -> None:
        exchange, whose = other.exchange, other.whose
        if other.mine:
            who = "you, earlier"
        elif whose is None:
            who = "written by another program"
        else:
            who = f"{whose.lane} · {whose.source}"
        self._exchange(exchange, who)

    def _recent(self, exchanges: tuple[Exchange, ...]) -> None:
        if not exchanges:
            self._line(output.paint("nothing has been said yet", "dim"))
        for exchange in exchanges:
            self._exchange(exchange, "earlier")

    def _exchange(self, exchange: Exchange, who: str) -> None:
        """Set off by a bar at its left: what others write never looks like a prompt."""
        status = self._status
        self._clear_status()
        self._fresh_line()
        self._barred(output.paint(f"[{output.cut(who)}]", "yellow"), exchange.question)
        for name in exchange.tools:
            self._barred("", output.paint(f"[{output.cut(name)}]", "dim"), tamed=True)
        if exchange.reply is not None:
            self._barred("", exchange.reply)
        elif exchange.turn_id is not None:
            why = f" ({output.cut(exchange.reason)})" if exchange.reason else ""
            self._barred("", output.paint(f"ended: {exchange.outcome}{why}", "red"), tamed=True)
        if status:
            self._set_status(status)

    def _barred(self, head: str, text: str | None, *, tamed: bool = False) -> None:
        bar = output.paint("| ", "dim")
        text = text or ""
        if len(text) > OTHERS_CHARS_MAX:
            more = len(text) - OTHERS_CHARS_MAX
            text = f"{text[:OTHERS_CHARS_MAX]}…\n({more} more characters)"
        lines = (text if tamed else tame(text)).split("\n")
        if head:
            lines[0] = f"{head} {lines[0]}".rstrip()
        sys.stdout.write("".join(f"{bar}{line}\n" for line in lines))

    # ----------------------------------------------------------------------------- lines

    def _say_place(self, position: int, waiting_for: str | None) -> None:
        if self._shown:
            return
        if position or waiting_for:
            why = f", waiting for: {waiting_for}" if waiting_for else ""
            self._set_status(f"{position} ahead{why}")
        else:
            self._clear_status()

    def _set_status(self, line: str) -> None:
        self._fresh_line()
        self._clear_status()
        self._status = output.cut(line, max(8, self.screen.width - 1))  # It must be one row.
        sys.stdout.write(output.paint(self._status, "dim"))

    def _clear_status(self) -> None:
        if self._status:
            self._status = ""
            sys.stdout.write("\r\x1b[K")

    def _fresh_line(self) -> None:
        if not self._at_start:
            sys.stdout.write("\n")
            self._at_start = True

    def _line(self, text: str = "") -> None:
        self._clear_status()
        self._fresh_line()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def _wrong(self, text: str) -> None:
        self._line(output.paint(f"holdfast: {output.cut(text, 1_000)}", "red"))


@contextmanager
def _logs_to(screen: Screen, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """What is logged must not be written into the line being typed."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, [_Noting(screen, loop)]
    try:
        yield
    finally:
        root.handlers = before


class _Noting(logging.Handler):
    """Any thread."""

    def __init__(self, screen: Screen, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._screen, self._loop = screen, loop

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname}: {record.getMessage()}"
        self._loop.call_soon_threadsafe(self._screen.tell, told.Note(text))

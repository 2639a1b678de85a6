"""Who plays in the incidents: an agent, other processes, and who tells the story."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Self

from holdfast import _assemble
from holdfast._core.tree import text_of
from holdfast.agents import _transcript
from holdfast.errors import ProviderError
from holdfast.lab.crew import GONE, Crew
from holdfast.lab.oracle import read
from holdfast.lab.scenarios import Saw
from holdfast.types import Final as FinalEvent
from holdfast.types import Text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.crew import Message
    from holdfast.lab.oracle import Facts
    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = [
    "KEY",
    "NOTHING",
    "QUICK",
    "Echo",
    "Hands",
    "Story",
    "count",
    "facts_of",
    "followed",
    "locked",
    "open_",
    "outcomes",
    "reply",
    "until",
    "within_s",
]

KEY: Final = "agent:main:main"
NOTHING: Final = "nothing"  #: The outcome of a message that nobody was told of in time.
PLAYERS: Final = "holdfast.lab.scenarios._players"
#: Holds are looked at twice a second, and an abort has a fifth of one.
QUICK: Final[Mapping[str, Any]] = {"turn.lease_ms": 3_000, "abort.settle_ms": 200}

HEARD_S: Final = 60.0  #: How long another process is listened for.

_within_s = [30.0]


def within_s(bound_s: float | None = None) -> float:
    """How long an outcome is waited for before it counts as missing; *bound_s*: from now on."""
    if bound_s is not None:
        _within_s[0] = bound_s
    return _within_s[0]


class Story:
    """What happened, a line each; the facts; and whether they are what was promised."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._facts: dict[str, Any] = {}
        self._ok = True

    def __call__(self, line: str) -> None:
        self._lines.append(line)

    def check(self, name: str, found: Any, promised: Any) -> None:
        """A fact, and what was promised of it."""
        self._facts[name] = found
        kept = found == promised
        self._ok &= kept
        line = f"{name.replace('_', ' ')}: {found}"
        self._lines.append(line if kept else f"{line}, and not {promised}")

    def saw(self) -> Saw:
        return Saw(self._ok, self._facts, tuple(self._lines))


class Echo:
    """
    Replies with what it was asked, everything that was steered in included.

    Args:
        slow: who is asked something with this word in it says its first token, and the rest
            when `go` is set.
        fails: who is asked something with this word in it is refused by its provider.
    """

    def __init__(self, *, slow: str | None = None, fails: str | None = None) -> None:
        self._slow, self._fails = slow, fails
        self.asked: list[Prompt] = []
        self.slow_ones = 0
        self.began, self.go = asyncio.Event(), asyncio.Event()  #: Something slow has begun.
        self._another = asyncio.Condition()

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        self.asked.append(prompt)
        said = [prompt.text]
        said += [text_of(m) for m in prompt.made if m.get("role") == "user"]
        yield Text("reply ")
        if self._fails is not None and self._fails in prompt.text:
            raise ProviderError(reason="auth", detail="no such key", http_status=401)
        if self._slow is not None and self._slow in prompt.text:
            async with self._another:
                self.slow_ones += 1
                self._another.notify_all()
            self.began.set()
            await self.go.wait()
        said += [each.text for each in await hook.steered()]
        rest = f"to: {' + '.join(said)}"
        yield Text(rest)
        yield reply(f"reply {rest}")

    async def has_begun(self, slow_ones: int) -> None:
        """Wait until it has been asked so many slow ones."""
        async with self._another:
            await self._another.wait_for(lambda: self.slow_ones >= slow_ones)

    def count(self, text: str) -> int:
        """How often it was asked something with *text* in it."""
        return sum(text in prompt.text for prompt in self.asked)


def reply(text: str) -> FinalEvent:
    """A finished reply, as agents make them."""
    used = _transcript.usage(fresh=1, output=1)
    content = [{"type": "text", "text": text}]
    message = _transcript.assistant(
        content, provider="lab", model="echo", used=used, stop="stop"
    )
    return FinalEvent(message=message, text=text)


class Hands:
    """Other processes: started, heard one by one, ended by their own pid."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._crew = Crew(self._told)
        self._said: dict[str, asyncio.Queue[Message]] = {}
        self._pids: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await asyncio.to_thread(self._crew.__exit__, None, None, None)

    def start(self, name: str, work: str, /, **arguments: Any) -> int:
        """Start *work* of `_players`, or MODULE:FUNCTION.  Returns its pid."""
        self._said[name] = asyncio.Queue()
        where = work if ":" in work else f"{PLAYERS}:{work}"
        self._pids[name] = self._crew.start(name, where, **arguments)
        return self._pids[name]

    async def heard(self, name: str, kind: str) -> Mapping[str, Any]:
        """
        Read on until *name* says *kind*.

        Raises:
            RuntimeError: it ended before.
            TimeoutError: not within HEARD_S.
        """
        async with asyncio.timeout(HEARD_S):
            while True:
                message = await self._said[name].get()
                if message.kind == kind:
                    return message.facts
                if message.kind == GONE:
                    raise RuntimeError(self._crew.last_words(name))

    async def ended(self, name: str) -> int:
        """Wait for its end.  Returns its exit code; -9: it was killed."""
        return int((await self.heard(name, GONE))["exit_code"])

    def order(self, word: str, *names: str) -> None:
        self._crew.order(word, *names)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self._pids[name], number)

    async def killed(self, name: str) -> None:
        """Kill it as the kernel's own killer would, and wait until it is gone."""
        self.signal(name, signal.SIGKILL)
        await self.ended(name)

    def _told(self, message: Message) -> None:
        said = self._said[message.member]
        self._loop.call_soon_threadsafe(said.put_nowait, message)


async def outcomes(hf: Holdfast, turns: Iterable[str]) -> dict[str, str]:
    """What became of each turn; NOTHING: its sender was told nothing in time."""

    async def one(turn_id: str) -> str:
        try:
            return (await (await hf.receipt(turn_id)).outcome(within_s())).kind
        except TimeoutError:
            return NOTHING

    turns = list(turns)
    return dict(zip(turns, await asyncio.gather(*map(one, turns)), strict=True))


def count(found: Iterable[str]) -> dict[str, int]:
    """How many there are of each."""
    found = sorted(found)
    return {each: found.count(each) for each in dict.fromkeys(found)}


async def facts_of(hf: Holdfast, key: str = KEY) -> Facts:
    """What the transcript of *key* says, read from the file alone."""
    path = hf.store.transcripts.path(await hf.session(key))
    return await asyncio.to_thread(read, str(path))


def locked(paths: Iterable[object]) -> int:
    """On how many of these transcripts somebody's claim lies."""
    return sum(os.path.lexists(f"{path}.lock") for path in paths)


async def until(true: Callable[[], Any], hf: Holdfast) -> bool:
    """Look again whenever the store changes, until *true*; False: not within the bound."""
    try:
        async with asyncio.timeout(within_s()):
            while True:
                found = true()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return True
                await hf.change()
    except TimeoutError:
        return False


async def followed(hf: Holdfast, turn_id: str) -> list[str]:
    """The kinds of everything that happens to a turn, until nothing is owed any more."""
    async with asyncio.timeout(within_s()):
        async with aclosing(hf.follow(turn_id)) as events:
            return [event.kind async for event in events]


open_ = _assemble.open

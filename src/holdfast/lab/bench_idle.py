"""
What does a session cost that nobody talks to?

A process answers one message in each of many sessions, and then none: what it has grown by in
memory, what the database has, and how often it asks the store for anything.  The first
hundreds of sessions are not counted: they pay for what all of them use.
"""

from __future__ import annotations

import asyncio
import gc
import os
from typing import TYPE_CHECKING, Any, Final

from holdfast import _assemble
from holdfast.backends.files.control.reader import Reader
from holdfast.backends.files.control.store import DATABASE
from holdfast.backends.files.control.writer import Writer
from holdfast.lab.crew import Crew
from holdfast.testing.scripted import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.child import Child

__all__ = ["idle_for", "idle_sessions"]

SESSIONS: Final = 10_000
FIRST: Final = 500
AT_ONCE: Final = 32
SETTLE_S: Final = 3.0  #: For what was just answered to be put away.
WATCH_S: Final = 10.0


def idle_sessions(where: str, *, quick: bool) -> dict[str, Any]:
    """
    Measure in a process of its own, with its store at *where*.

    Returns:
        ``{"sessions", "memory_bytes", "database_bytes", "reads_per_s", "writes_per_s"}``;
        bytes are per session, a turn and its transcript's name included.
    """
    sessions = SESSIONS // 10 if quick else SESSIONS
    with Crew() as crew:
        crew.start(
            "idler", "holdfast.lab.bench_idle:idle_for", state=where, sessions=sessions,
            watch_s=WATCH_S / 5 if quick else WATCH_S,
        )  # fmt: skip
        crew.wait("ready")
        crew.order("go")
        return dict(crew.wait("done", timeout_s=900)["idler"])


async def idle_for(
    child: Child, *, state: str, sessions: int, watch_s: float
) -> dict[str, float]:
    """Answer one message a session, then watch what is asked of the store."""
    asked = {"reads": 0, "writes": 0}
    _count(Reader, "read", lambda: asked.update(reads=asked["reads"] + 1))
    _count(Writer, "submit", lambda: asked.update(writes=asked["writes"] + 1))
    async with _assemble.open(state, agent=_Forgetful()) as hf:
        await child.ready()
        await _answer(hf, range(FIRST))
        before = await _sizes(state)
        await _answer(hf, range(FIRST, FIRST + sessions))
        after = await _sizes(state)
        asked.update(reads=0, writes=0)
        await asyncio.sleep(watch_s)
        found = dict(asked)
    return {
        "sessions": sessions,
        "memory_bytes": round((after[0] - before[0]) / sessions),
        "database_bytes": round((after[1] - before[1]) / sessions),
        "reads_per_s": round(found["reads"] / watch_s, 2),
        "writes_per_s": round(found["writes"] / watch_s, 2),
    }


class _Forgetful(ScriptedModel):
    """Keeps no prompt: what is weighed is not the agent."""

    async def respond(self, prompt: Any, hook: Any) -> Any:
        async for event in super().respond(prompt, hook):
            self.prompts.clear()  # Behind the last event nobody asks for more.
            yield event


async def _answer(hf: Holdfast, numbers: range) -> None:
    waiting = iter(numbers)

    async def some() -> None:
        for n in waiting:
            receipt = await hf.submit(f"agent:main:bench:{n}", f"message {n}")
            outcome = await receipt.outcome()
            assert outcome.kind == "replied", outcome

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


async def _sizes(state: str) -> tuple[int, int]:
    """(resident bytes of this process, bytes of the database without its log)."""
    await asyncio.sleep(SETTLE_S)
    gc.collect()
    return _resident(), os.stat(os.path.join(state, DATABASE)).st_size


def _resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def _count(kind: type, name: str, count: Callable[[], None]) -> None:
    real = getattr(kind, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        count()
        return real(*args, **kwargs)

    setattr(kind, name, counted)

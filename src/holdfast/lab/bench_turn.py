"""
What does a turn cost beside its model call, alone, between processes, and in a crowd?

Sketch first.  A turn is two synced transactions (admission with its lease, commit), two
synced appends, and some ten hops between threads: 3-5 ms on a local disk.  One that lasts
has a third, while its model talks.

    overhead        a turn through the library, less the very same prompt asked of the very
                    same agent directly; in pairs, in turns, against a model that answers at
                    once from a process of its own
    handoff         end of `respond` in one process → start of the next, already waiting,
                    turn's in another: commit, wake-up, lease, load, question
    many_sessions   sessions that share the slots of a lane, against a bound: the time that
                    the model alone takes, ceil(sessions / slots) × turns × model, and the
                    floor: what has to be synced at the least, in a bare loop, two transactions
                    for all slots together and two appends for each turn.  Beside it the same
                    turns with a model that takes no time
    idle            see `bench_idle.py`

The clock is CLOCK_MONOTONIC, one for all processes of a machine.
"""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import statistics
import time
from contextlib import aclosing
from itertools import pairwise
from time import monotonic_ns, perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from holdfast import _assemble
from holdfast._core.settings import LANES
from holdfast.agents.pydantic_ai import PydanticAgent
from holdfast.lab.bench_idle import idle_sessions
from holdfast.lab.crew import Crew
from holdfast.lab.figures import quiet, scratch, summary_ms
from holdfast.lab.unhooked import Unhooked
from holdfast.testing.model_server import ModelServer
from holdfast.testing.scripted import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pydantic_ai.models import Model

    from holdfast.lab.child import Child
    from holdfast.lab.figures import Report
    from holdfast.ports import Agent, ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = ["bench_turn", "run_own_turns", "serve_model"]

SESSION_TURNS: Final = 10  #: Then a fresh session: the history stays short.
WARMUP: Final = 3
#: How long a turn holds the session while its follower gets in line behind it.
HANDOFF_MODEL_S: Final = 0.02
MANY_MODEL_S: Final = 0.05
FLOOR_ROUNDS: Final = 200
COMMITS: Final = 2
APPENDS: Final = 2
FLOOR_BYTES: Final = 600
_CREW: Final = "holdfast.lab.bench_turn:"


def bench_turn(
    directory: str | None, *, quick: bool, report: Report | None = None
) -> dict[str, Any]:
    """
    Measure a turn.

    Args:
        directory: where to make a scratch directory; None: on a disk somewhere.
        quick: a tenth of the rounds, for a look.
        report: told what is being done.

    Returns:
        The JSON of `holdfast bench turn`.
    """
    told = report or quiet
    pairs, handoffs, sessions, turns = (30, 30, 40, 3) if quick else (300, 300, 200, 5)
    with scratch(directory) as where:
        told(f"turn: {pairs} turns, each beside its bare model call …")
        overhead = _overhead(os.path.join(where, "overhead"), pairs)
        told(f"turn: {2 * handoffs} turns of one session in two processes …")
        handoff = _handoff(os.path.join(where, "handoff"), handoffs)
        told(f"turn: {sessions} sessions, {turns} turns each …")
        many = many_sessions(where, sessions, turns, told)
        told("turn: sessions that nobody talks to …")
        idle = idle_sessions(os.path.join(where, "idle"), quick=quick)
    return {
        "handoff": summary_ms(handoff),
        "overhead": summary_ms(overhead),
        "many_sessions": many,
        "idle": idle,
    }


# -------------------------------------------------------------------------------- overhead


def _overhead(state: str, pairs: int) -> list[int]:
    """Nanoseconds that the library adds to a model call, pair by pair."""
    with Crew() as crew:
        crew.start("model", _CREW + "serve_model")
        served = crew.wait("ready")["model"]
        return asyncio.run(_overhead_against(state, str(served["base_url"]), pairs))


async def serve_model(child: Child) -> None:
    """A model that answers at once, until the parent is done with it."""
    with ModelServer() as server:
        await child.ready(base_url=server.base_url)


async def _overhead_against(state: str, base_url: str, pairs: int) -> list[int]:
    model, differences_ns = _model_at(base_url), list[int]()
    agent = _Remembering(PydanticAgent(model))
    async with model, _assemble.open(state, agent=agent) as hf:
        for n in range(WARMUP + pairs):
            key = f"agent:main:bench:{n // SESSION_TURNS}"
            start = perf_counter_ns()
            receipt = await hf.submit(key, f"How deep is the water at buoy {n}?")
            outcome = await receipt.outcome()
            through_ns = perf_counter_ns() - start
            assert outcome.kind == "replied", outcome
            start = perf_counter_ns()
            await agent.ask_again()
            bare_ns = perf_counter_ns() - start
            if n >= WARMUP:
                differences_ns.append(through_ns - bare_ns)
    return differences_ns


def _model_at(base_url: str) -> Model:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=base_url, api_key="bench")
    return OpenAIChatModel("bench", provider=provider)


class _Remembering:
    """Keeps the prompt that the library made, so that it can be asked again without it."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._prompt: Prompt | None = None

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        self._prompt = prompt
        async with aclosing(self._agent.respond(prompt, hook)) as events:
            async for event in events:
                yield event

    async def ask_again(self) -> None:
        assert self._prompt is not None
        async with aclosing(self._agent.respond(self._prompt, Unhooked())) as events:
            async for _ in events:
                pass


# --------------------------------------------------------------------------------- handoff


def _handoff(state: str, turns: int) -> list[int]:
    """Nanoseconds from the end of one process's model call to the start of the other's."""
    with Crew() as crew:
        for name in ("left", "right"):
            crew.start(name, _CREW + "run_own_turns", state=state, name=name, turns=turns)
        crew.wait("ready")
        crew.order("go")
        return _handoffs(crew.wait("done"))


def _handoffs(said: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """Only where the session really changed hands, to a turn that was in line by then."""
    spans = sorted(
        (*span, name) for name, facts in said.items() for span in facts["spans"]
    )  # [start of respond, its end, when submit had returned, session, process]
    return [
        after[0] - before[1]
        for before, after in pairwise(spans)
        if before[4] != after[4] and before[3] == after[3] and after[2] < before[1]
    ]


async def run_own_turns(
    child: Child, *, state: str, name: str, turns: int
) -> dict[str, list[list[int]]]:
    """One of two processes that take turns on a session, each running its own."""
    model = _Timed(HANDOFF_MODEL_S)
    spans: list[list[int]] = []
    async with _assemble.open(state, agent=model) as hf:
        await child.ready()
        for n in range(turns):
            session = n // SESSION_TURNS
            receipt = await hf.submit(f"agent:main:bench:{session}", f"{name} {n}")
            waiting_ns = monotonic_ns()
            await receipt.outcome()
            spans.append([*model.spans[receipt.turn_id], waiting_ns, session])
    return {"spans": spans}


class _Timed(ScriptedModel):
    """Answers after *model_s* seconds, and notes when it was asked and when it was done."""

    def __init__(self, model_s: float) -> None:
        super().__init__()
        self._model_s = model_s
        self.spans: dict[str, tuple[int, int]] = {}

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        start_ns = monotonic_ns()
        await asyncio.sleep(self._model_s)
        async with aclosing(super().respond(prompt, hook)) as events:
            async for event in events:
                self.spans[prompt.turn_id] = (start_ns, monotonic_ns())
                yield event


# --------------------------------------------------------------------------- many sessions


def many_sessions(where: str, sessions: int, turns: int, told: Report) -> dict[str, float]:
    """How long all of them take, and how long they have to."""
    slots = LANES["user"].concurrency
    rounds = math.ceil(sessions / slots) * turns
    commit_s, append_s = _bare_s(os.path.join(where, "floor"), slots)
    bare_s = rounds * COMMITS * commit_s + sessions * turns * APPENDS * append_s
    floor_s = asyncio.run(_many(os.path.join(where, "own"), sessions, turns, 0.0))
    took_s = asyncio.run(_many(os.path.join(where, "many"), sessions, turns, MANY_MODEL_S))
    model_s = rounds * MANY_MODEL_S
    bound_s = model_s + floor_s
    told(
        f"turn: bound {bound_s:.2f} s = ceil({sessions} / {slots}) × {turns} ×"
        f" {MANY_MODEL_S:g} s + {floor_s:.2f} s with a model that takes no time; took"
        f" {took_s:.2f} s; the bare syncs alone {bare_s:.2f} s"
    )
    return {
        "seconds": round(took_s, 3),
        "bound_seconds": round(bound_s, 3),
        "ratio": round(took_s / bound_s, 2),
        "model_seconds": round(model_s, 3),
        "floor_seconds": round(floor_s, 3),
        "bare_seconds": round(bare_s, 3),
    }


def _bare_s(where: str, slots: int) -> tuple[float, float]:
    """Seconds of one FULL transaction for all *slots* together, and of one synced append."""
    os.makedirs(where)
    db = sqlite3.connect(os.path.join(where, "floor.db"), isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL").fetchone()
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE floor (id INTEGER PRIMARY KEY, data TEXT) STRICT")
    rows = [("x" * FLOOR_BYTES,)] * slots
    fd = os.open(os.path.join(where, "floor.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    commits, appends = list[float](), list[float]()
    for _ in range(FLOOR_ROUNDS):
        start_s = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO floor (data) VALUES (?)", rows)
        db.execute("COMMIT")
        middle_s = time.perf_counter()
        os.write(fd, b"x" * FLOOR_BYTES)
        os.fdatasync(fd)
        commits.append(middle_s - start_s)
        appends.append(time.perf_counter() - middle_s)
    os.close(fd)
    db.close()
    return statistics.median(commits), statistics.median(appends)


async def _many(state: str, sessions: int, turns: int, model_s: float) -> float:
    """All sessions at once, each asking again when it was answered, to the last reply."""
    async with _assemble.open(state, agent=_Timed(model_s)) as hf:

        async def talk(session: int) -> None:
            for n in range(turns):
                receipt = await hf.submit(f"agent:main:bench:{session}", f"message {n}")
                outcome = await receipt.outcome()
                assert outcome.kind == "replied", outcome

        start_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for session in range(sessions):
                group.create_task(talk(session))
        return time.monotonic() - start_s

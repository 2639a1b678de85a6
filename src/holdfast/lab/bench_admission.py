"""
How long until a message is durable, and how many a second does a machine take in?

Sketch first.  An admission is one FULL transaction (70-100 µs alone on a local disk), two
hops to the writer's thread and back, seven statements instead of two, and one page of
reading for the receipt.  Expect half a millisecond; over one, something waits that should
not.  The floor is a bare transaction that inserts a row of the same size, timed in the same
run and interleaved, because a shared machine's disk changes from one minute to the next.

Throughput: processes that only admit, as senders beside a runner do, each message awaited
before the next one is sent.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from holdfast import _assemble
from holdfast.lab.bench_queue import queue_depths
from holdfast.lab.crew import Crew
from holdfast.lab.figures import quiet, scratch, summary_ms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.child import Child
    from holdfast.lab.figures import Report

__all__ = ["admit_for", "bench_admission"]

PROCESSES: Final = 4
SESSIONS: Final = 50  #: Messages go round, as they do where many people write.
WARMUP: Final = 100
BLOCK: Final = 25  #: Rounds of the one before rounds of the other.
TEXT: Final = "What did we decide about the harbour? " * 5
ROW_BYTES: Final = 600  #: What one admission leaves in `turns` and `events`.
#: Neither the bound on waiting turns is measured here, nor what it costs to warn of each that
#: waits for two seconds: nobody answers any, and a warning is a transaction too.
SETTINGS: Final = {"turn.queue_max": 10_000_000, "turn.wait_warn_ms": "1h"}


def bench_admission(
    directory: str | None, *, quick: bool, report: Report | None = None
) -> dict[str, Any]:
    """
    Measure admission.

    Args:
        directory: where to make a scratch directory; None: on a disk somewhere.
        quick: a tenth of the rounds, for a look.
        report: told what is being done.

    Returns:
        The JSON of `holdfast bench admission`.
    """
    told = report or quiet
    rounds, seconds = (300, 1.0) if quick else (3_000, 10.0)
    with scratch(directory) as where:
        told(f"admission: {rounds} messages, one at a time, beside a bare transaction …")
        ours_ns, floor_ns = asyncio.run(_alone(where, rounds))
        told(f"admission: {PROCESSES} processes for {seconds:g} s …")
        counts = _crowd(os.path.join(where, "crowd"), seconds)
        told("admission: a session with few waiting turns, and one with many …")
        queue = queue_depths(where, quick=quick)
    return {
        **summary_ms(ours_ns),
        "per_s": round(sum(counts) / seconds),
        "processes": PROCESSES,
        "slowest_over_fastest": round(max(counts) / max(min(counts), 1), 2),
        "floor_p50_ms": summary_ms(floor_ns)["p50_ms"],
        "queue": queue,
    }


async def _alone(where: str, rounds: int) -> tuple[list[int], list[int]]:
    """(nanoseconds of each submit, nanoseconds of each bare transaction)."""
    ours_ns: list[int] = []
    floor_ns: list[int] = []
    floor = _Floor(os.path.join(where, "floor.db"))
    async with _assemble.open(os.path.join(where, "alone"), settings=SETTINGS) as hf:
        keys = _keys("alone")
        for _ in range(WARMUP):
            await hf.submit(next(keys), TEXT)
            floor.transact()
        while len(ours_ns) < rounds:
            ours_ns += [await _submit(hf, next(keys)) for _ in range(BLOCK)]
            for _ in range(BLOCK):
                start = perf_counter_ns()
                floor.transact()
                floor_ns.append(perf_counter_ns() - start)
    floor.close()
    return ours_ns, floor_ns


async def _submit(hf: Holdfast, key: str) -> int:
    start = perf_counter_ns()
    await hf.submit(key, TEXT)
    return perf_counter_ns() - start


def _keys(who: str) -> Iterator[str]:
    """Session keys, round and round."""
    return (f"agent:main:bench:{who}:{n % SESSIONS}" for n in count())


class _Floor:
    """The least that makes one row durable in SQLite."""

    def __init__(self, path: str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        (mode,) = self._db.execute("PRAGMA journal_mode = WAL").fetchone()
        assert mode == "wal"
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE floor (id INTEGER PRIMARY KEY, data TEXT) STRICT")

    def transact(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("INSERT INTO floor (data) VALUES (?)", ("x" * ROW_BYTES,))
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()


# --------------------------------------------------------------------------------- a crowd


def _crowd(directory: str, seconds: float) -> list[int]:
    """How many messages each of `PROCESSES` had accepted, all starting together."""
    with Crew() as crew:
        for n in range(PROCESSES):
            crew.start(
                f"sender {n}", "holdfast.lab.bench_admission:admit_for",
                directory=directory, who=str(n), seconds=seconds,
            )  # fmt: skip
        crew.wait("ready")
        crew.order("go")
        return [int(said["count"]) for said in crew.wait("done").values()]


async def admit_for(
    child: Child, *, directory: str, who: str, seconds: float
) -> dict[str, int]:
    """One sender.  It has no agent: nothing is run while the others are measured."""
    async with _assemble.open(directory, settings=SETTINGS) as hf:
        keys = _keys(who)
        for _ in range(SESSIONS):
            await hf.submit(next(keys), TEXT)
        await child.ready()
        accepted, end_s = 0, time.monotonic() + seconds
        while time.monotonic() < end_s:
            await hf.submit(next(keys), TEXT)
            accepted += 1
    return {"count": accepted}

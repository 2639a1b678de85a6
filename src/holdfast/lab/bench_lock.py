"""
How fast is the write lock, alone and in a crowd, and how much of it is ours?

Sketch first.  Taking and releasing it is 23 system calls, each 1-5 µs on a warm local disk;
none of them makes an inode.  Expect a floor of 35-50 µs, and three times that as the bound of
what Python may make of it.  The floor is the same calls in a bare loop, timed in the same run
and interleaved, because a shared machine's speed changes by a third from one minute to the
next.

Contended: real processes, each appending with no pause; every line carries who wrote it and
its number, so that lost, doubled and torn lines are counted, not guessed.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import multiprocessing
import os
import signal
import statistics
import time
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from holdfast.backends.files import fs
from holdfast.backends.files.lock import spare
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.lab.bench_size import prompt_windows
from holdfast.lab.figures import quiet, scratch

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier, Event

    from holdfast.lab.figures import Report

    Worker = Callable[[int, str, float, Barrier, Connection], None]

__all__ = ["bench_lock"]

PROCESSES: Final = 8
PACED_PROCESSES: Final = 4
HOLD_S: Final = 0.001
THINK_S: Final = 0.005
WARMUP: Final = 200
BLOCK: Final = 50  #: Rounds of the one before rounds of the other.
PAYLOAD: Final = b"x" * 380  #: As long as an entry.
CLAIM: Final = b"x" * spare.SIZE
START_S: Final = 30.0


def bench_lock(directory: str | None, *, quick: bool, report: Report = quiet) -> dict[str, Any]:
    """
    Measure the write lock.

    Args:
        directory: where to make a scratch directory; None: on a disk somewhere.
        quick: a tenth of the rounds, for a look.

    Returns:
        The JSON of `holdfast bench lock`: microseconds, milliseconds and counts.
    """
    with scratch(directory) as where:
        return {
            "uncontended": _uncontended(where, rounds=500 if quick else 5_000),
            "contended": _contended(where, _append_worker, seconds=2.0 if quick else 10.0),
            "contended_async": _contended(
                where, _append_on_a_loop_worker, seconds=2.0 if quick else 10.0
            ),
            "paced": _paced(where, seconds=1.0 if quick else 10.0),
            "prompt_window": prompt_windows(where, quick=quick, report=report),
            "reclaim": _reclaim(where, rounds=5 if quick else 20),
        }


# ------------------------------------------------------------------ uncontended


def _uncontended(scratch: str, *, rounds: int) -> dict[str, float]:
    path = os.path.join(scratch, "alone.jsonl")
    ours_us: list[float] = []
    floor_us: list[float] = []

    async def run() -> None:
        lock = WriteLock(path, lane="user", run_id="bench")
        for _ in range(WARMUP):
            async with lock:
                pass
        while len(ours_us) < rounds:
            for _ in range(BLOCK):
                start = perf_counter_ns()
                async with lock:
                    pass
                ours_us.append((perf_counter_ns() - start) / 1e3)
            for _ in range(BLOCK):
                start = perf_counter_ns()
                _floor(path)
                floor_us.append((perf_counter_ns() - start) / 1e3)

    asyncio.run(run())
    ours, floor = statistics.median(ours_us), statistics.median(floor_us)
    return {
        "p50_us": round(ours, 1),
        "p99_us": round(_quantile(ours_us, 0.99), 1),
        "floor_p50_us": round(floor, 1),
        "ratio": round(ours / floor, 2),
    }


def _floor(path: str) -> None:
    """The system calls of one round, and nothing else."""
    ticket = 1 << 40
    latch = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_APPEND | os.O_NOFOLLOW)
    os.fstat(latch)
    gate = os.open(path + ".gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fs.try_lock(gate, fs.byte_lock(0))
    head = os.pread(gate, 16, 0)
    fs.try_lock(gate, fs.byte_lock(ticket))
    os.pwrite(gate, head[:8], 0)
    fs.unlock(gate, fs.byte_unlock(0))
    fs.first_locked(gate, 1 << 32, ticket)
    fcntl.flock(latch, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.lstat(path)
    name, source = path + ".lock", path + ".claim"
    claim = os.open(source, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    os.fstat(claim)
    os.pwrite(claim, CLAIM, 0)
    os.link(source, name)
    os.lstat(name)
    os.pread(claim, spare.SIZE, 0)
    os.unlink(name)
    os.close(claim)
    fcntl.flock(latch, fcntl.LOCK_UN)
    os.close(latch)
    fs.unlock(gate, fs.byte_unlock(ticket))
    os.close(gate)


# -------------------------------------------------------------------- contended


def _contended(scratch: str, worker: Worker, *, seconds: float) -> dict[str, Any]:
    path = os.path.join(scratch, f"{worker.__name__}.jsonl")
    reports = _crowd(worker, PROCESSES, path, seconds)
    counts = [report["count"] for report in reports]
    lost, torn = _audit(path, counts)
    return {
        "processes": PROCESSES,
        "appends_per_s": round(sum(counts) / seconds),
        "wait_p99_9_ms": round(_pooled_ms(reports), 2),
        "slowest_over_fastest": round(max(counts) / max(min(counts), 1), 2),
        "lost": lost,
        "torn": torn,
    }


def _paced(scratch: str, *, seconds: float) -> dict[str, float]:
    path = os.path.join(scratch, "paced.jsonl")
    reports = _crowd(_paced_worker, PACED_PROCESSES, path, seconds)
    return {
        "cycles_per_s": round(sum(report["count"] for report in reports) / seconds),
        "wait_p99_9_ms": round(_pooled_ms(reports), 2),
    }


def _append_worker(
    number: int, path: str, seconds: float, ready: Barrier, pipe: Connection
) -> None:
    lock = WriteLock(path, lane="user", run_id=f"bench-{number}")
    waits_us, count = [], 0
    ready.wait(START_S)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        start = perf_counter_ns()
        with lock as hold:
            waits_us.append((perf_counter_ns() - start) / 1e3)
            hold.append(
                b'{"by":%d,"n":%d,"text":"%s"}\n' % (number, count, PAYLOAD), sync=False
            )
        count += 1
    pipe.send({"count": count, "waits_us": waits_us})


def _append_on_a_loop_worker(
    number: int, path: str, seconds: float, ready: Barrier, pipe: Connection
) -> None:
    lock = WriteLock(path, lane="user", run_id=f"bench-{number}")
    waits_us: list[float] = []

    async def run() -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            start = perf_counter_ns()
            async with lock as hold:
                waits_us.append((perf_counter_ns() - start) / 1e3)
                count = len(waits_us) - 1
                hold.append(
                    b'{"by":%d,"n":%d,"text":"%s"}\n' % (number, count, PAYLOAD), sync=False
                )

    ready.wait(START_S)
    asyncio.run(run())
    pipe.send({"count": len(waits_us), "waits_us": waits_us})


def _paced_worker(
    number: int, path: str, seconds: float, ready: Barrier, pipe: Connection
) -> None:
    lock = WriteLock(path, lane="user", run_id=f"bench-{number}")
    waits_us, count = [], 0
    ready.wait(START_S)
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        start = perf_counter_ns()
        with lock:
            waits_us.append((perf_counter_ns() - start) / 1e3)
            time.sleep(HOLD_S)
        count += 1
        time.sleep(THINK_S)
    pipe.send({"count": count, "waits_us": waits_us})


def _crowd(work: Worker, processes: int, path: str, seconds: float) -> list[dict[str, Any]]:
    """Run *work* in real processes that start together; their reports."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes)
    pipes, crowd = [], []
    for number in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(number, path, seconds, ready, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        crowd.append(process)
    try:
        return [pipe.recv() for pipe in pipes]
    finally:
        for process in crowd:
            process.join()


def _audit(path: str, counts: list[int]) -> tuple[int, int]:
    """(lost or doubled lines, lines that do not parse)."""
    seen: dict[tuple[int, int], int] = {}
    torn = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
                key = (entry["by"], entry["n"])
            except (ValueError, KeyError, TypeError):
                torn += 1
                continue
            seen[key] = seen.get(key, 0) + 1
    wanted = {(by, n) for by, count in enumerate(counts) for n in range(count)}
    return sum(seen.get(key, 0) != 1 for key in wanted), torn


# ---------------------------------------------------------------------- reclaim


def _reclaim(scratch: str, *, rounds: int) -> dict[str, float]:
    """Holder killed, waiter already waiting: how long until the waiter holds."""
    path = os.path.join(scratch, "reclaim.jsonl")
    context = multiprocessing.get_context("spawn")
    took_ms = []
    for _ in range(rounds):
        ours, theirs = context.Pipe(duplex=False)
        held, waiting = context.Event(), context.Event()
        holder = context.Process(target=_hold_for_ever, args=(path, held))
        holder.start()
        held.wait(START_S)
        waiter = context.Process(target=_wait_once, args=(path, waiting, theirs))
        waiter.start()
        waiting.wait(START_S)
        time.sleep(0.05)  # It is in the queue by then; this is a bench, not a test.
        assert holder.pid is not None
        killed_ns = time.monotonic_ns()
        os.kill(holder.pid, signal.SIGKILL)
        took_ms.append((ours.recv() - killed_ns) / 1e6)
        holder.join()
        waiter.join()
    return {"p50_ms": round(statistics.median(took_ms), 2), "max_ms": round(max(took_ms), 2)}


def _hold_for_ever(path: str, held: Event) -> None:
    with WriteLock(path):
        held.set()
        signal.pause()


def _wait_once(path: str, waiting: Event, pipe: Connection) -> None:
    lock = WriteLock(path)
    waiting.set()
    with lock:
        pipe.send(time.monotonic_ns())


def _pooled_ms(reports: list[dict[str, Any]]) -> float:
    return _quantile([wait for report in reports for wait in report["waits_us"]], 0.999) / 1e3


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]

"""
Does anything grow with the transcript?

Sketch first.  Appending writes at the end of a file whose length the kernel knows; leaving a
mark and comparing with it reads 4 KB before the end: neither should notice a gigabyte.
Opening for the next turn must find the active branch; what it costs is what it decodes.

Every transcript here is made of entries of 400 bytes, as a chat's are; the last compaction
keeps under a megabyte of them.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from holdfast._assemble_attempt import Attempt
from holdfast._core import jsonl
from holdfast._core.tree import VERSION
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.transcript.held import HeldFile
from holdfast.backends.files.transcript.loaded import Reading
from holdfast.lab.figures import quiet, scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.lab.figures import Report

__all__ = ["bench_append", "bench_open", "prompt_windows"]

MB: Final = 1_000_000
SIZES_MB: Final = (1, 10, 100, 1_000)
KEPT_MB: Final = 0.9  #: Behind the last compaction.
LINE_BYTES: Final = 400
BATCH: Final = 5_000  #: Lines written at once.


def bench_append(
    directory: str | None, *, quick: bool, report: Report = quiet
) -> dict[str, Any]:
    """
    Write lock, one entry, release; nothing synced.

    Returns:
        ``{"by_size": [{"transcript_mb", "p50_us"}], "growth"}``: the largest over the
        smallest.
    """
    return _by_size(directory, quick=quick, measure=_append_p50_us, report=report)


def prompt_windows(
    directory: str | None, *, quick: bool, report: Report = quiet
) -> list[dict[str, Any]]:
    """Opening a window and closing it again: `[{"transcript_mb", "p50_us"}]`."""
    found = _by_size(directory, quick=quick, measure=_window_p50_us, report=report, empty=True)
    return list(found["by_size"])


def bench_open(directory: str | None, *, quick: bool, report: Report = quiet) -> dict[str, Any]:
    """
    The write lock and the history for the next turn, by a process that has read nothing.

    Returns:
        ``{"by_size": [{"transcript_mb", "p50_ms"}]}``.
    """
    sizes = SIZES_MB[:2] if quick else SIZES_MB[:3]
    with scratch(directory) as where:
        found = []
        for size_mb in sizes:
            report(f"a transcript of {size_mb} MB …")
            path = _transcript(where, size_mb)
            found.append({"transcript_mb": size_mb, "p50_ms": _open_p50_ms(path, quick=quick)})
            os.unlink(path)
    return {"by_size": found}


def _by_size(
    directory: str | None, *, quick: bool, measure: Callable[[str, int], float],
    report: Report, empty: bool = False,
) -> dict[str, Any]:  # fmt: skip
    sizes = [*([0] if empty else []), *(SIZES_MB[:3] if quick else SIZES_MB)]
    rounds = 100 if quick else 1_000
    with scratch(directory) as where:
        found = []
        for size_mb in sizes:
            report(f"a transcript of {size_mb} MB …")
            path = _transcript(where, size_mb)
            p50_us = measure(path, rounds)
            found.append({"transcript_mb": size_mb, "p50_us": round(p50_us, 1)})
            os.unlink(path)
    growth = found[-1]["p50_us"] / found[0]["p50_us"]
    return {"by_size": found, "growth": round(growth, 2)}


# ---------------------------------------------------------------------------- measuring


def _append_p50_us(path: str, rounds: int) -> float:
    async def run() -> float:
        lock, reading = WriteLock(path), Reading()
        took = []
        for n in range(-10, rounds):
            began_ns = perf_counter_ns()
            held = HeldFile(await lock.acquire(), reading, durability="os")
            held.append([_entry(f"new-{n}", None)], final=False)
            held.release()
            took.append(perf_counter_ns() - began_ns)
        return statistics.median(took[10:]) / 1000

    return asyncio.run(run())


def _window_p50_us(path: str, rounds: int) -> float:
    async def run() -> float:
        took = []
        async with Attempt(path) as attempt:
            for _ in range(-10, rounds):
                began_ns = perf_counter_ns()
                async with attempt.prompt_window():
                    pass
                took.append(perf_counter_ns() - began_ns)
        return statistics.median(took[10:]) / 1000

    return asyncio.run(run())


def _open_p50_ms(path: str, *, quick: bool) -> float:
    async def once() -> float:
        began_ns = perf_counter_ns()
        held = HeldFile(await WriteLock(path).acquire(), Reading())
        held.branch().history()
        held.mark()
        took_ns = perf_counter_ns() - began_ns
        held.release()
        return took_ns / 1e6

    took = [asyncio.run(once()) for _ in range(2 if quick else 5)]
    return round(statistics.median(took), 2)


# ------------------------------------------------------------------------- transcripts


def _transcript(where: str, size_mb: int) -> str:
    path = os.path.join(where, f"{size_mb}.jsonl")
    header = {"type": "session", "version": VERSION, "id": f"s{size_mb}", "timestamp": ""}
    with open(path, "wb") as file:
        file.write(jsonl.encode([header]))
        file.writelines(_batches(size_mb * MB))
    return path


def _batches(size: int) -> Iterator[bytes]:
    """Lines of one conversation, in lots; a compaction stands KEPT_MB before the end."""
    lines = size // LINE_BYTES
    compacted = lines - int(KEPT_MB * MB / LINE_BYTES)
    parent = None
    for start in range(0, lines, BATCH):
        entries = []
        for n in range(start, min(start + BATCH, lines)):
            entry = _entry(f"{n:08x}", parent)
            if n == compacted:
                entry = {**entry, "type": "compaction", "firstKeptEntryId": entry["id"],
                         "summary": "all of it"}  # fmt: skip
            entries.append(entry)
            parent = entry["id"]
        yield jsonl.encode(entries)


def _entry(entry_id: str, parent: str | None) -> dict[str, Any]:
    role = "user" if entry_id[-1] in "02468ace" else "assistant"
    text = "x" * (LINE_BYTES - 180)
    return {
        "type": "message", "id": entry_id, "parentId": parent,
        "timestamp": "2026-11-20T11:02:03.456Z",
        "message": {"role": role, "content": [{"type": "text", "text": text}]},
    }  # fmt: skip

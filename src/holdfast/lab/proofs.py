"""
The founding threads' own demonstrations, run on this code.

Each prints what the thread reported, what happens here, and every event with its time, so
that the two can be laid side by side.  Nothing is mocked: real files, real locks; the disk
of `proof-eio` fails once, where the thread's did.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast._assemble_attempt import Attempt
from holdfast._core import jsonl
from holdfast._core.tree import VERSION
from holdfast.backends.files import fs
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.backends.files.transcript.transcripts import read_tree
from holdfast.errors import HoldfastError, LockTimeoutError, NotFoundError, OwnerWaitError
from holdfast.lab.figures import quiet, scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from holdfast.lab.figures import Report

__all__ = ["PROOFS", "Proof", "checked", "run_proof"]

PROMPT_S: Final = 0.2  #: How long a model call takes in the threads.
CONTENTION_S: Final = 0.025  #: How long the rival of #82891 waits.


@dataclass(slots=True)
class Told:
    """Events of one demonstration, each with its time."""

    report: Report
    start_s: float = field(default_factory=time.perf_counter)
    timeline: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, who: str, event: str) -> None:
        at_ms = round((time.perf_counter() - self.start_s) * 1000, 2)
        self.timeline.append({"at_ms": at_ms, "who": who, "event": event})
        self.report(f"  [{at_ms:8.2f}ms] {who:<9}{event}")

    def since(self, began_s: float) -> str:
        return f"{(time.perf_counter() - began_s) * 1000:.2f} ms"


@dataclass(frozen=True, slots=True)
class Proof:
    thread: str
    about: str
    there: str  #: What the thread reports.
    run: Callable[[str, Told], Coroutine[Any, Any, tuple[bool, str]]]


# ---------------------------------------------------------------- proof-same-file, #86067


async def _same_file(path: str, told: Told) -> tuple[bool, str]:
    """Two prompts of 200 ms on one file, and a stranger who writes in the middle."""
    entered = asyncio.Event()

    async def prompt(who: str) -> None:
        async with Attempt(path) as attempt:
            await attempt.append(_message("user", f"{who} asks"))
            async with attempt.prompt_window() as window:
                told(who, "prompt in flight (200 ms)")
                entered.set()
                await asyncio.sleep(PROMPT_S)
            if window.entries:
                told(who, f"learns of {len(window.entries)} entries that came in between")
            await attempt.append(_message("assistant", f"{who} is answered"))
            told(who, "DELIVERED")

    async def stranger() -> None:
        await entered.wait()
        await asyncio.sleep(PROMPT_S / 2)
        told("external", "appends outside the ownership chain")
        with open(path, "ab") as file:  # noqa: ASYNC230  It knows of no lock and no loop.
            file.write(jsonl.encode([{"type": "custom", "id": "external", "parentId": None}]))

    await asyncio.gather(prompt("ctrl-A"), prompt("ctrl-B"), stranger())
    tree = read_tree(path)
    answers = [
        entry for entry in tree.entries.values()
        if entry.get("message", {}).get("role") == "assistant"
    ]  # fmt: skip
    return len(
        answers
    ) == 2 and not tree.skipped, f"replies delivered {len(answers)} of 2, takeover errors 0"


# ------------------------------------------------------------------ proof-dispose, #86427


async def _dispose(path: str, told: Told) -> tuple[bool, str]:
    """A prompt that never comes back, and is disposed of: does the next one get its turn?"""
    first, opened = Attempt(path), asyncio.Event()

    async def never_back() -> None:
        await first.__aenter__()
        await first.prompt_window().__aenter__()
        opened.set()

    async def wait_in_line(who: str, queue_timeout_s: float) -> bool:
        began_s = time.perf_counter()
        async with Attempt(path, queue_timeout_s=queue_timeout_s) as attempt:
            try:
                async with attempt.prompt_window():
                    told(who, f"completed, {told.since(began_s)} after it asked")
            except OwnerWaitError:
                told(who, f"timed out after {queue_timeout_s * 1000:g} ms")
                return False
            return True

    await asyncio.create_task(never_back())
    told("ctrl-A", "opens its window, and will never come back")
    stuck = not await asyncio.create_task(wait_in_line("ctrl-B", PROMPT_S))
    waiting = asyncio.create_task(wait_in_line("ctrl-C", 10.0))
    await asyncio.sleep(PROMPT_S / 20)
    told("ctrl-A", "dispose()")
    await first.dispose()
    completed = await waiting
    await first.dispose()
    told("ctrl-A", "dispose() once more: nothing happens")
    return stuck and completed, "the 200 ms time-out becomes a completion"


# --------------------------------------------------------------- proof-contention, #82891


async def _contention(path: str, told: Told) -> tuple[bool, str]:
    """A rival that waits 25 ms for the write lock while a model call is in flight."""
    async with Attempt(path, lane="user", run_id="embedded") as attempt:
        rival = WriteLock(path, timeout_s=CONTENTION_S)
        try:
            await asyncio.to_thread(rival.acquire_sync)
            held = False
        except LockTimeoutError as error:
            held = True
            told("rival", f"while the lock is held: {error.code}, by {error.holder}")
        async with attempt.prompt_window():
            told("attempt", "prompt in flight; the lock is given back")
            began_s = time.perf_counter()
            hold = await rival.acquire()
            hold.append(jsonl.encode([{"type": "custom", "id": "rival"}]), sync=False)
            hold.release()
            told("rival", f"writes, {told.since(began_s)} after it asked")
        await attempt.append(_message("assistant", "answered"))
        told("attempt", "DELIVERED, after the rival's entry")
    return held and len(read_tree(path).entries) == 2, "the rival writes during the model call"


# ---------------------------------------------------------------------- proof-eio, #89811


async def _eio(path: str, told: Told) -> tuple[bool, str]:
    """The fence cannot be read when the prompt is released: who has the lock then?"""
    refused: HoldfastError | None = None
    async with Attempt(path) as attempt:
        async with attempt.prompt_window():
            told("attempt", "prompt in flight")
        try:
            with _failing_once("fstat", errno.EIO):
                await attempt.prompt_window().__aenter__()
        except HoldfastError as error:
            refused = error
            told("attempt", f"second prompt refused: {error.code}: Input/output error")
        began_s = time.perf_counter()
        async with Attempt(path, timeout_s=1) as following:
            told("next", f"has the lock, {told.since(began_s)} after it asked")
            await following.append(_message("assistant", "answered"))
        told("next", "DELIVERED")
    free = _claim_is_gone(path)
    told("disk", "no claim stays" if free else "A CLAIM STAYS")
    return refused is not None and free, "the next turn writes at once, not in 17 minutes"


def _claim_is_gone(path: str) -> bool:
    return not os.path.lexists(f"{path}.lock")


@contextmanager
def _failing_once(name: str, code: int) -> Iterator[None]:
    """The next call of one entry of the table fails before it takes effect."""
    real = getattr(fs.table, name)

    def fail(*args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        setattr(fs.table, name, real)
        raise OSError(code, os.strerror(code))

    setattr(fs.table, name, fail)
    try:
        yield
    finally:
        setattr(fs.table, name, real)


# -------------------------------------------------------------------------------- running

PROOFS: Final[dict[str, Proof]] = {
    "proof-same-file": Proof(
        "PR #86067", "two prompts on one file, and a stranger's append in the middle",
        "replies delivered 0 of 2, takeover errors 2; with the patch 1 of 2 and 1", _same_file,
    ),
    "proof-dispose": Proof(
        "PR #86067, #86427", "a prompt that is disposed of without coming back",
        "the next prompt timed out after 200 ms; with the patch it completed in 3.52 ms",
        _dispose,
    ),
    "proof-contention": Proof(
        "PR #82891", "a rival that waits 25 ms while a model call is in flight",
        "session file locked (timeout 25ms): the lock was held across the model call",
        _contention,
    ),
    "proof-eio": Proof(
        "PR #89811", "reading the fence fails with EIO when the prompt is released",
        "the lock leaked, and every turn failed for up to 17 minutes", _eio,
    ),
}  # fmt: skip


def checked(names: Sequence[str]) -> Sequence[str]:
    """*names*, if there are such demonstrations; NotFoundError before anything has run."""
    for name in names:
        if name not in PROOFS:
            hint = f"there are: {', '.join(PROOFS)}"
            raise NotFoundError(what="demonstration", name=name, hint=hint)
    return names


def run_proof(name: str, report: Report | None = None) -> dict[str, Any]:
    """
    Run one demonstration in a scratch directory.

    Returns:
        ``{"name", "thread", "about", "there", "here", "passed", "timeline"}``.

    Raises:
        NotFoundError: no such demonstration.
    """
    checked([name])
    proof, told = PROOFS[name], Told(report or quiet)
    told.report(f"{name} ({proof.thread}): {proof.about}")
    told.report(f"  there: {proof.there}")
    with scratch(None) as directory:
        path = os.path.join(directory, "session.jsonl")
        header = {"type": "session", "version": VERSION, "id": "proof", "timestamp": ""}
        with open(path, "wb") as file:
            file.write(jsonl.encode([header]))
        told.start_s = time.perf_counter()
        passed, here = asyncio.run(proof.run(path, told))
    told.report(f"  here:  {here}")
    told.report(f"  {'PASS' if passed else 'FAIL'}")
    return {
        "name": name, "thread": proof.thread, "about": proof.about, "there": proof.there,
        "here": here, "passed": passed, "timeline": told.timeline,
    }  # fmt: skip


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}

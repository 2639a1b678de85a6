"""
What simulated processes do: ours, through the real lock; strangers, by their own rules.

A stranger is written from the description of the founding format and shares no code with
ours: it creates the claim exclusively, writes who it is, and unlinks what it created.  A
remover also removes what it believes dead, by look and then unlink, as the founding system
does.  An operator removes every lock file that it sees.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import HoldfastError, LockWaitError
from holdfast.testing._sim_oracle import names_nobody

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.testing._sim_disk import Inode
    from holdfast.testing._sim_world import World

__all__ = ["TRANSCRIPT", "Writer", "last_one", "operator", "remover", "stranger", "visitor"]

TRANSCRIPT: Final = "/s/t.jsonl"
CLAIM: Final = f"{TRANSCRIPT}.lock"
STRANGER_POLL_S: Final = 0.05


@dataclass(slots=True)
class Writer:
    """One of ours: takes the lock, appends a line, gives it back; *rounds* times."""

    world: World
    name: str
    rounds: int = 3
    path: str = TRANSCRIPT
    timeout_s: float = 8.0
    max_hold_ms: int = 30_000
    pause_s: float = 0.002
    hold_s: float = 0.0
    patient: bool = False  #: Every round must succeed: nothing else is being tried.

    def __call__(self) -> None:
        lock = WriteLock(self.path, timeout_s=self.timeout_s, max_hold_ms=self.max_hold_ms)
        for number in range(self.rounds):
            try:
                self._round(lock, number)
            except HoldfastError as error:
                self.world.note(f"{self.name}: {type(error).__name__}: {error}")
                if self.patient and not _names_nobody(self.world, error):
                    self.world.fail(f"{self.name} did not get the lock: {error}")
            if self.pause_s:
                fs.table.sleep(self.pause_s * self.world.lots.random())

    def _round(self, lock: WriteLock, number: int) -> None:
        hold, oracle = lock.acquire_sync(), self.world.oracle
        oracle.acquired(hold)
        try:
            text, sync = f"{self.name}-{number}", self.world.lots.random() < 0.3
            line = oracle.setting_out(text)
            if self.hold_s:
                fs.table.sleep(self.hold_s)
            try:
                hold.append(line_of(text), sync=sync)
            except HoldfastError as error:
                oracle.refused(line, error)
                raise
            oracle.done(line, synced=sync)
        finally:
            oracle.releasing(hold)
            hold.release()


def _names_nobody(world: World, error: HoldfastError) -> bool:
    """
    Told of a claim that names no owner: its stranger died between creating and writing.

    Nobody can prove that one dead, so it is reported, and a person decides.
    """
    if not isinstance(error, LockWaitError):
        return False
    return names_nobody(world.disk.find(CLAIM).data)


def line_of(text: str) -> bytes:
    return json.dumps({"type": "message", "text": text}).encode() + b"\n"


def last_one(world: World, name: str = "last") -> Writer:
    """Comes when the storm is over, and must get the lock."""
    return Writer(world, name, rounds=1, timeout_s=40.0, pause_s=0.0, patient=True)


def visitor(world: World) -> Callable[[], None]:
    """Takes every transcript's lock once: what the dead have left there is replaced."""

    def run() -> None:
        for path in sorted(
            path for path in dict(world.disk.files()) if path.endswith(".jsonl")
        ):
            with suppress(LockWaitError):  # A claim that names nobody stays; no other may.
                WriteLock(path, timeout_s=40.0).acquire_sync().release()

    return run


def stranger(world: World, name: str, rounds: int = 2) -> Callable[[], None]:
    """Creates exclusively, and unlinks only what it created."""

    def run() -> None:
        for number in range(rounds):
            claim = _enter_claim(world)
            if claim is not None:
                _write_under_it(world, claim, f"{name}-{number}")
            fs.table.sleep(0.001)

    return run


def remover(world: World, name: str, rounds: int = 2) -> Callable[[], None]:
    """As a stranger, but removes whatever claim stands in its way, whoever's it is."""

    def run() -> None:
        for number in range(rounds):
            with suppress(OSError):
                fs.table.lstat(CLAIM)
                fs.table.unlink(CLAIM)
            claim = _enter_claim(world)
            if claim is not None:
                _write_under_it(world, claim, f"{name}-{number}")
            fs.table.sleep(0.001)

    return run


def operator(count: int = 1) -> Callable[[], None]:
    """``rm *.lock``, so many times."""

    def run() -> None:
        for _ in range(count):
            with suppress(FileNotFoundError):
                fs.table.unlink(CLAIM)

    return run


def _enter_claim(world: World) -> Inode | None:
    """The claim that now stands; None: not within 20 seconds, or the disk refused."""
    deadline_s = fs.table.monotonic() + 20.0
    while fs.table.monotonic() < deadline_s:
        try:
            fd = fs.table.open(CLAIM, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            fs.table.sleep(STRANGER_POLL_S)
            continue
        except OSError:
            return None
        claim = world.process.fds[fd].inode
        world.oracle.stranger_entered(claim)
        with suppress(OSError):  # Then it stands without a payload; strangers do that.
            fs.table.write(fd, _payload(world))
        with suppress(OSError):
            fs.table.close(fd)
        return claim
    return None


def _payload(world: World) -> bytes:
    about = {"pid": world.process.pid, "createdAt": "2026-01-01T00:00:00.000Z"}
    return json.dumps({**about, "starttime": world.process.start}).encode()


def _write_under_it(world: World, claim: Inode, text: str) -> None:
    """Append one line, then unlink the claim if it is still what was created."""
    oracle = world.oracle
    line = oracle.setting_out(text)
    try:
        fd = fs.table.open(TRANSCRIPT, os.O_RDWR | os.O_APPEND)
        try:
            size = fs.table.fstat(fd).st_size
            data = line_of(text)
            if size and fs.table.pread(fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # Somebody died in the middle of a line.
            done = fs.table.write(fd, data) == len(data)
        finally:
            fs.table.close(fd)
        line.said = "done" if done else "unknown"
    except OSError:
        line.said = "unknown"
    finally:
        oracle.stranger_left()
        with suppress(OSError):
            if fs.table.lstat(CLAIM).st_ino == claim.number:
                fs.table.unlink(CLAIM)

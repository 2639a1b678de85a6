"""
Who of a store's owners is stopped while it holds something, and ending such a process.

A write lock is found by the kernel's word: a stopped owner's open transcripts, and the
`flock` that its descriptors carry.  No transcript is looked for: a store of ten thousand
sessions costs no more than one of ten.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast._core.frozen import Facts, Verdict, What, judge
from holdfast.backends.files import fs, identity
from holdfast.backends.files.look import frozen
from holdfast.types import FrozenHolder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from holdfast._core.settings import Settings
    from holdfast.backends.files.lock.gate import Gate
    from holdfast.types import Owner

__all__ = ["Executioner"]

TRANSCRIPT: Final = ".jsonl"


class Executioner:
    """
    Args:
        where: the state directory.
        gate: of its control store.
    """

    def __init__(self, where: str, gate: Gate, settings: Settings) -> None:
        self._where, self._gate = where, gate
        self._kill = settings.frozen_holder == "kill"
        self._kill_ms = settings.frozen_kill_ms

    def seen(self, owners: Collection[Owner]) -> list[FrozenHolder]:
        """
        Who is stopped now and holds the gate or, of *owners*, a write lock.

        Cost: one to three reads of /proc an owner.
        """
        found = []
        inside = frozen.inside(self._gate)
        if inside is not None and frozen.is_frozen(inside.pid, inside.start):
            said = frozen.in_words(frozen.transaction_of(self._where), inside)
            owner = _owner_of(inside.pid, inside.start, owners)
            found.append(FrozenHolder(inside.pid, inside.start, None, owner, said))
        for owner in owners:
            if not _is_here(owner) or not frozen.is_frozen(owner.pid, owner.start_time):
                continue
            holder = frozen.Holder(owner.pid, owner.start_time, None)
            for path in self._locked_by(owner.pid):
                said = frozen.in_words(f"the write lock of {path}", holder)
                found.append(FrozenHolder(owner.pid, owner.start_time, path, owner, said))
        return found

    def end(self, holder: FrozenHolder, owners: Collection[Owner], stopped_ms: int) -> Verdict:
        """
        End *holder*, if the table says so; everything is read again, behind its pidfd.

        Args:
            owners: those registered, as read just now.

        Returns:
            What the table said; KILL: the signal was sent.
        """
        early = judge(self._facts(holder, owners, stopped_ms))
        if early.what is not What.KILL:
            return early
        try:
            fd = os.pidfd_open(holder.pid)
        except OSError:
            return Verdict(What.NOTHING, "another_process")
        try:
            verdict = judge(self._facts(holder, owners, stopped_ms))
            if verdict.what is What.KILL:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        except OSError:
            return Verdict(What.NOTHING, "another_process")
        finally:
            fs.close_quietly(fd)
        return verdict

    def _facts(self, holder: FrozenHolder, owners: Collection[Owner], stopped_ms: int) -> Facts:
        pid, start = holder.pid, holder.start_time
        owner = _owner_of(pid, start, owners)
        status = _status(pid)
        users, tracer = status.get("Uid", "").split(), status.get("TracerPid")
        return Facts(
            stopped=frozen.is_frozen(pid),
            same=None if start is None else _start_of(pid) == start,
            holds=self._holds(holder),
            stopped_ms=stopped_ms,
            kill=self._kill,
            kill_ms=self._kill_ms,
            ourselves=pid == fs.table.getpid(),
            registered=owner is not None,
            same_namespace=owner is not None and _is_here(owner) and _same_namespace(pid),
            same_user=set(users) == {str(os.geteuid())} if users else None,
            traced=None if tracer is None else tracer.strip() != "0",
        )

    def _holds(self, holder: FrozenHolder) -> bool:
        if holder.path is not None:
            return holder.path in self._locked_by(holder.pid)
        inside = frozen.inside(self._gate)
        return inside is not None and (inside.pid, inside.start) == (
            holder.pid, holder.start_time,
        )  # fmt: skip

    def _locked_by(self, pid: int) -> list[str]:
        """Transcripts of this store whose latch the process *pid* has."""
        root = fs.table.realpath(self._where) + os.sep
        found = []
        for fd, path in _open_files(pid):
            if path.startswith(root) and path.endswith(TRANSCRIPT):
                with suppress(OSError):
                    if b"FLOCK" in fs.read_small(f"/proc/{pid}/fdinfo/{fd}"):
                        found.append(path)
        return sorted(set(found))


def _open_files(pid: int) -> Iterator[tuple[str, str]]:
    try:
        fds = fs.table.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for fd in fds:
        with suppress(OSError):
            yield fd, fs.table.readlink(f"/proc/{pid}/fd/{fd}")


def _owner_of(pid: int, start: int | None, owners: Collection[Owner]) -> Owner | None:
    for owner in owners:
        if (owner.pid, owner.start_time) == (pid, start) and _is_here(owner):
            return owner
    return None


def _is_here(owner: Owner) -> bool:
    """Whether its pid is one of ours: same boot, same pid namespace."""
    ours = identity.me()
    return (owner.boot_id, owner.pid_namespace) == (ours.boot, ours.pid_ns)


def _same_namespace(pid: int) -> bool | None:
    try:
        theirs = fs.table.readlink(f"/proc/{pid}/ns/pid")
        return theirs == fs.table.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _start_of(pid: int) -> int | None:
    try:
        return identity.start_of(pid)
    except (OSError, ValueError, IndexError):
        return None


def _status(pid: int) -> dict[str, str]:
    try:
        lines = fs.read_small(f"/proc/{pid}/status").decode(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value for name, _, value in (line.partition(":") for line in lines)}

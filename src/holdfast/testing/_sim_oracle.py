"""
What must never happen, looked at after every step that could make it happen.

The kernel tells of every write, link, unlink and rename; the simulated programs tell when
they have the lock and when they give it back.  Together: at most one of ours holds; only
the holder writes; nobody of ours removes the claim of a live owner; and in the end every
line that was acknowledged is there once and whole, and none that was refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import LockLostError, StoreError, TakeoverError

if TYPE_CHECKING:
    from holdfast.backends.files.lock.hold import Hold
    from holdfast.testing._sim_disk import Inode
    from holdfast.testing._sim_process import Process
    from holdfast.testing._sim_world import World

__all__ = ["Oracle", "names_nobody"]

_CLAIM: Final = ".lock"


@dataclass(slots=True)
class Held:
    """One acquisition of ours that was not given back yet."""

    process: Process
    hold: Hold
    inode: int

    def over(self) -> bool:
        """Whether it let go of the latch by itself: its watchdog ended it."""
        latch = self.hold._grip.latch  # noqa: SLF001
        return latch is None or not latch.held


@dataclass(slots=True)
class Line:
    """One line that somebody set out to append."""

    writer: str
    said: str = "nothing"  #: done, refused, unknown; nothing: its writer died before it knew.
    synced: bool = False


@dataclass(slots=True)
class Oracle:
    """
    One world's observer.

    Attributes:
        lawful: nobody removes a claim that is not its own, but for dead ones.  Where an
            operator or a remover is at work, exclusion towards strangers cannot hold.
        spares_strangers: not even then does a reclaim remove a live stranger's claim.  (A
            release looks, and unlinks right after: what comes in between is removed.)
        torn: writers may die in the middle of a line.
    """

    world: World
    lawful: bool = True
    torn: bool = False
    spares_strangers: bool = False
    acquired_count: int = 0
    appended_count: int = 0
    held: list[Held] = field(default_factory=list)
    lines: dict[str, Line] = field(default_factory=dict)
    transcripts: dict[int, str] = field(default_factory=dict)  #: inode number → path
    claims: dict[int, tuple[Process, bytes]] = field(default_factory=dict)
    strangers: dict[int, Process] = field(default_factory=dict)  #: claim's inode number → owner
    inside: list[Process] = field(default_factory=list)  #: Strangers that believe they hold.

    leaving: list[Process] = field(default_factory=list)  #: Giving back what they had.
    turns: Any = None  #: The observer of the second layer, if there is one.

    def watch(self, path: str) -> None:
        """A transcript whose writers are looked at."""
        self.transcripts[self.world.disk.find(path).number] = path

    # ------------------------------------------------------------------ programs tell

    def acquired(self, hold: Hold) -> None:
        world = self.world
        latch = hold._grip.latch  # noqa: SLF001
        assert latch is not None
        mine = Held(world.process, hold, latch.inode[1])
        for other in self.held:
            if other.inode == mine.inode and not other.over():
                world.fail(f"two hold: {other.process.name} and {world.process.name}")
        if self.lawful and self.inside:
            world.fail(f"{world.process.name} holds, and the stranger {self.inside[0].name}")
        self.acquired_count += 1
        self.leaving = [one for one in self.leaving if one is not world.process]
        self.held.append(mine)
        world.note(f"{world.process.name} HOLDS")

    def releasing(self, hold: Hold) -> None:
        self.held = [one for one in self.held if one.hold is not hold]
        self.leaving.append(self.world.process)
        self.world.note(f"{self.world.process.name} RELEASES")

    def setting_out(self, text: str) -> Line:
        """Before an append of *text*, which is unique."""
        assert text not in self.lines
        line = self.lines[text] = Line(self.world.process.name)
        return line

    def done(self, line: Line, *, synced: bool) -> None:
        line.said, line.synced = "done", synced
        self.appended_count += 1

    @staticmethod
    def refused(line: Line, error: BaseException) -> None:
        nothing = isinstance(error, LockLostError | TakeoverError) or (
            isinstance(error, StoreError) and getattr(error, "landed", False) is False
        )
        line.said = "refused" if nothing else "unknown"

    def stranger_entered(self, claim: Inode) -> None:
        self.strangers[claim.number] = self.world.process
        self.inside.append(self.world.process)
        if self.lawful:
            for other in self.held:
                if not other.over():
                    self.world.fail(f"a stranger holds, and {other.process.name}")
            if len(self.inside) > 1:
                self.world.fail("two strangers hold")

    def stranger_left(self) -> None:
        self.inside = [one for one in self.inside if one is not self.world.process]

    # ------------------------------------------------------------------ the kernel tells

    def wrote(self, process: Process, inode: Inode, data: bytes) -> None:
        if self.turns is not None and data:
            self.turns.wrote(process, inode, data)
        if inode.number not in self.transcripts or not data or process.number == 0:
            return
        if process in self.inside:
            if self.lawful and any(not one.over() for one in self.held):
                self.world.fail(f"{process.name}, a stranger, wrote under our lock")
            return
        mine = [
            one for one in self.held if one.process is process and one.inode == inode.number
        ]
        if not mine:
            self.world.fail(f"{process.name} wrote without the lock")
        elif mine[-1].over():
            self.world.fail(f"{process.name} wrote after its hold was over")
        elif self.lawful and self.inside:
            self.world.fail(f"{process.name} wrote beside the stranger {self.inside[0].name}")

    def cut(self, process: Process, inode: Inode) -> None:
        if self.turns is not None:
            self.turns.cut(inode)
        if inode.number in self.transcripts and not any(
            one.process is process and not one.over() for one in self.held
        ):
            self.world.fail(f"{process.name} cut the transcript without the lock")

    def linked(self, process: Process, path: str, inode: Inode) -> None:
        if path.endswith(_CLAIM) and inode.number not in self.strangers:
            self.claims.setdefault(inode.number, (process, b""))
            if process.dead or b"claimId" in inode.data:
                owner = process if self._names(process, inode) else self.claims[inode.number][0]
                self.claims[inode.number] = (owner, bytes(inode.data))

    @staticmethod
    def _names(process: Process, inode: Inode) -> bool:
        return f'"pid": {process.pid},'.encode() in inode.data

    def renamed(self, process: Process, source: str, _: str, inode: Inode) -> None:
        if process.ours and source.endswith(_CLAIM):
            self._removed(process, inode)

    def unlinked(self, process: Process, path: str, inode: Inode) -> None:
        if not process.ours:
            return
        owner = self.strangers.get(inode.number)
        if owner is not None and inode.links == 0 and owner is not process:
            spared = self.spares_strangers and process not in self.leaving
            if not owner.dead and (self.lawful or spared):
                self.world.fail(f"{process.name} removed the claim of {owner.name}, alive")
        elif path.endswith(_CLAIM):
            self._removed(process, inode)

    def _removed(self, process: Process, inode: Inode) -> None:
        owner, payload = self.claims.get(inode.number, (process, b""))
        if owner is process or owner.dead or bytes(inode.data) != payload:
            return
        holds = any(one.process is owner and not one.over() for one in self.held)
        if holds:
            self.world.fail(f"{process.name} removed the claim of {owner.name}, which holds")

    def died(self, process: Process) -> None:
        if self.turns is not None:
            self.turns.died(process)
        self.held = [one for one in self.held if one.process is not process]
        self.inside = [one for one in self.inside if one is not process]

    def ended(self, process: Process) -> None:
        """It came to its end by itself: everything must have been given back."""
        busy = any(one.state in {"ready", "asleep"} for one in process.threads)
        if process.fds and not busy:  # Its watchdog may be in the middle of ending a hold.
            paths = sorted(process.fds)
            self.world.fail(f"{process.name} left descriptors open: {paths}")
        if any(one.process is process for one in self.held):
            self.world.fail(f"{process.name} ended with the lock")

    # ------------------------------------------------------------------ in the end

    def final(self, *, litter: bool) -> None:
        """
        After the storm and after the last process.

        Args:
            litter: private names of dead owners may lie about; claims may not.
        """
        files = dict(self.world.disk.files())
        claims = [
            path for path in files if path.endswith(_CLAIM) and not self._unnamed(files[path])
        ]
        if claims:
            self.world.fail(f"claims left: {claims}")
        kinds = (".jsonl", ".gate", ".claim")
        rest = [path for path in files if not path.endswith((*kinds, _CLAIM))]
        if rest and not litter:
            self.world.fail(f"left behind: {rest}")
        for path in sorted(set(self.transcripts.values())):
            self._look_at(path)
        if self.turns is not None:
            self.turns.final()

    def _unnamed(self, claim: Inode) -> bool:
        """A dead stranger's that names nobody: it is reported, not removed."""
        owner = self.strangers.get(claim.number)
        return owner is not None and owner.dead and names_nobody(claim.data)

    def _look_at(self, path: str, *, cut: bool = False) -> None:
        whole, seen = bytes(self.world.disk.find(path).data), set()
        last: dict[str, int] = {}
        for raw in whole.split(b"\n")[:-1]:
            text = _text(raw)
            if text is None or text not in self.lines:
                if not self.torn or (text is not None):
                    self.world.fail(f"a torn or unknown line: {raw[:80]!r}")
                continue
            if text in seen:
                self.world.fail(f"twice: {text}")
            seen.add(text)
            line, number = self.lines[text], int(text.rpartition("-")[2])
            if line.said == "refused":
                self.world.fail(f"refused, and there all the same: {text}")
            if last.get(line.writer, -1) > number:
                self.world.fail(f"out of order: {text}")
            last[line.writer] = number
        if whole and not whole.endswith(b"\n") and not self.torn:
            self.world.fail(f"it ends in the middle of a line: {whole[-80:]!r}")
        for text, line in self.lines.items():
            if line.said == "done" and text not in seen and (line.synced or not cut):
                self.world.fail(f"lost: {text}")


def names_nobody(raw: bytes | bytearray) -> bool:
    """Whether a claim's bytes do not say who owns it: cut off, or not written yet."""
    try:
        claim: Any = json.loads(raw)
    except ValueError:
        return True
    return not isinstance(claim, dict) or "pid" not in claim


def _text(raw: bytes) -> str | None:
    try:
        entry: Any = json.loads(raw)
    except ValueError:
        return None
    text = entry.get("text") if isinstance(entry, dict) else None
    return text if isinstance(text, str) else None

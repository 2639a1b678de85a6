"""The simulated /proc: who runs, since when, and which kernel locks are held."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, Final

from holdfast.testing._sim_disk import DEVICE, Inode, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.testing._sim_process import Process
    from holdfast.testing._sim_world import World

__all__ = ["Proc"]

#: The first namespaces of every Linux: inode numbers that never differ.
_NAMESPACES: Final = {"pid": 4_026_531_836, "user": 4_026_531_837, "time": 4_026_531_834}


class Proc:
    """Files are made when they are opened, and stay as they were then."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.boot = 1  #: How often the machine was started.

    def file(self, path: str) -> Inode:
        """Raises OSError: ENOENT."""
        made = Inode(-1, stat.S_IFREG, 0o444, 0)
        made.data[:] = self._text(path).encode()
        return made

    def link(self, path: str) -> str:
        """readlink.  Raises OSError: ENOENT."""
        process, kind = self._process(path), path.rpartition("/")[2]
        if path == "/proc/self":
            return str(process.pid)
        if kind not in _NAMESPACES:
            raise refusal(errno.ENOENT, path)
        return f"{kind}:[{_NAMESPACES[kind]}]"

    def list(self, path: str) -> list[str]:
        """listdir.  Raises OSError: ENOENT."""
        if path == "/proc":
            return [str(process.pid) for process in self._world.processes if not process.dead]
        process = self._process(path)
        if path.endswith("/task"):
            return [str(process.pid)]
        if path.endswith("/fd"):
            return [str(fd) for fd in process.fds]
        raise refusal(errno.ENOENT, path)

    def _process(self, path: str) -> Process:
        word = path.split("/")[2]
        found = self._world.running(int(word)) if word.isdigit() else self._world.process
        if found is None:
            raise refusal(errno.ENOENT, path)
        return found

    def _text(self, path: str) -> str:
        if path == "/proc/sys/kernel/random/boot_id":
            return f"00000000-0000-4000-8000-{self.boot:012d}\n"
        if path == "/proc/self/mountinfo":
            return f"20 1 0:{DEVICE} / / rw - ext4 /dev/sim rw\n"
        if path == "/proc/self/mounts":
            return "/dev/sim / ext4 rw 0 0\nproc /proc proc rw 0 0\n"
        if path == "/proc/locks":
            return "".join(self._locks())
        process, kind = self._process(path), path.rpartition("/")[2]
        pid = process.pid
        state = "T" if process.frozen else "S"
        texts = {
            "stat": f"{pid} (python) {state} 1 " + "0 " * 17 + f"{process.start} 0\n",
            "status": f"Name:\tpython\nState:\t{state}\nPid:\t{pid}\nNSpid:\t{pid}\n",
            "cmdline": process.command.replace(" ", "\0") + "\0",
            "comm": "python\n",
        }
        if kind not in texts:
            raise refusal(errno.ENOENT, path)
        return texts[kind]

    def _locks(self) -> Iterator[str]:
        number = 0
        for process in self._world.processes:
            for description in process.fds.values():
                if description not in description.inode.flock:
                    continue
                number += 1
                where = f"00:{DEVICE:02x}:{description.inode.number}"
                yield f"{number}: FLOCK  ADVISORY  WRITE {process.pid} {where} 0 EOF\n"

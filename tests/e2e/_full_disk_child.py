"""
A store on a file system of its own, which is filled up and emptied again.  Not a test.

    python _full_disk_child.py NAME DIR    runs the scenario; prints what came of it as JSON

Every check that needs the process itself is made here; an AssertionError ends it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import holdfast
from holdfast.errors import DiskFullError, HoldfastError, ReadOnlyError
from holdfast.testing import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "agent:main:main"
WITHIN_S = 60.0
QUICK = {"turn.lease_ms": 3000, "abort.settle_ms": 500}


class Met(logging.Handler):
    """The errors that runs have met, by type; tells its loop of each."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.some = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        for argument in record.args or ():
            if isinstance(argument, HoldfastError):
                self.names.add(type(argument).__name__)
                self.some.set()


def fill_bytes(mount: Path) -> None:
    """To the last byte: what is left of the last page is nobody's."""
    fd = os.open(mount / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    size = 65_536
    while size:
        try:
            os.write(fd, b"\0" * size)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            size //= 2
    os.close(fd)


def fill_inodes(mount: Path) -> None:
    number = 0
    while True:
        try:
            os.close(os.open(mount / f"filler{number}", os.O_WRONLY | os.O_CREAT))
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return
        number += 1


def empty(mount: Path) -> None:
    for filler in mount.glob("filler*"):
        filler.unlink()


@contextmanager
def read_only(mount: Path) -> Iterator[None]:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(mount)], check=True)

    remount("ro")
    try:
        yield
    finally:
        remount("rw")


async def full(
    mount: Path, fill: Callable[[Path], None], *, most: int, must_refuse: bool
) -> dict[str, Any]:
    """
    Messages are accepted, the disk fills while the model talks, and is emptied again.

    *most*: so many more are sent while it is full, at most; fewer once one is refused.
    """
    go_on, state = asyncio.Event(), mount / "state"

    async def gate(prompt: Any, position: int) -> None:
        if prompt.text.startswith("held") and position == 1:
            await go_on.wait()

    met = Met()
    logging.getLogger("holdfast").addHandler(met)
    model = ScriptedModel(gate=gate)
    async with holdfast.open(state, agent=model, settings=QUICK) as hf:
        assert (await (await hf.submit(KEY, "before")).outcome(WITHIN_S)).kind == "replied"
        receipts = [await hf.submit(f"{KEY}:{n}", f"held {n}") for n in range(3)]
        while len(model.prompts) < 4:
            await hf.change()
        fill(mount)
        refused, kept = None, 0
        # What the log has room for is still accepted: a checkpoint has left some.
        while refused is None and kept < most:
            try:
                receipts.append(await hf.submit(f"{KEY}:new{kept}", "x" * 4000))
                kept += 1
            except HoldfastError as error:
                refused = error
        if must_refuse:
            assert isinstance(refused, DiskFullError), repr(refused)
        go_on.set()
        async with asyncio.timeout(WITHIN_S):
            await met.some.wait()
        for receipt in receipts:  # What was accepted is still there, whatever it met.
            assert (await hf.store.control.turn(receipt.turn_id)).outcome in {None, "replied"}
        empty(mount)
        outcomes = [await receipt.outcome(WITHIN_S) for receipt in receipts]
        assert (await (await hf.submit(KEY, "after")).outcome(WITHIN_S)).kind == "replied"
    return {
        "kinds": sorted({outcome.kind for outcome in outcomes}),
        "accepted": len(receipts),
        "refused": type(refused).__name__,
        "met": sorted(met.names),
    }


async def remounted(mount: Path) -> dict[str, Any]:
    """Read-only for a while: what is open keeps what it has, and says what it cannot do."""
    state = mount / "state"
    async with holdfast.open(state, agent=ScriptedModel(), settings=QUICK) as hf:
        await (await hf.submit(KEY, "before")).outcome(WITHIN_S)
    path = next(state.glob("agents/*/sessions/*.jsonl"))
    with read_only(mount):
        told = {}
        try:
            async with holdfast.open(state):
                pass
        except HoldfastError as error:
            told["open"] = type(error).__name__
        try:
            holdfast.WriteLock(path).acquire_sync()
        except HoldfastError as error:
            told["lock"] = type(error).__name__
    async with holdfast.open(state, agent=ScriptedModel(), settings=QUICK) as hf:
        assert (await (await hf.submit(KEY, "after")).outcome(WITHIN_S)).kind == "replied"
    assert told["open"] == ReadOnlyError.__name__, told
    return told


async def lock_alone(mount: Path, fill: Callable[[Path], None]) -> dict[str, Any]:
    """The write lock by itself: nothing half is left, and it works again afterwards."""
    path = mount / "s.jsonl"
    path.write_bytes(b'{"type":"session"}\n')
    fill(mount)
    told: list[str] = []
    for _ in range(3):
        try:
            with holdfast.WriteLock(path, timeout_s=1) as hold:
                while True:
                    hold.append(b'{"pad":"%s"}\n' % (b"x" * 3000), sync=True)
        except HoldfastError as error:
            told.append(type(error).__name__)
    left = [name for name in os.listdir(mount) if ".lock" in name]
    whole = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert path.read_bytes().endswith(b"\n"), "half a line was left"
    empty(mount)
    with holdfast.WriteLock(path, timeout_s=0) as hold:
        hold.append(b'{"after":1}\n', sync=True)
    return {"told": told, "left": left, "lines": len(whole)}


SCENARIOS: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda mount: full(mount, fill_bytes, most=300, must_refuse=True),
    "inodes": lambda mount: full(mount, fill_inodes, most=5, must_refuse=False),
    "remounted": remounted,
    "lock_bytes": lambda mount: lock_alone(mount, fill_bytes),
    "lock_inodes": lambda mount: lock_alone(mount, fill_inodes),
}

if __name__ == "__main__":
    print(json.dumps(asyncio.run(SCENARIOS[sys.argv[1]](Path(sys.argv[2])))))

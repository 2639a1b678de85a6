"""
The write lock tells the truth, and leaks nothing, when the file system does not cooperate.

Method: count the system calls of one successful acquire, append and release; then run it
again once per call and per errno, failing that call.  A call may fail before it does
anything, or do its work and then report failure.  After each run the real directory is the
judge: nothing is left, what was said about the append is what is in the file, and the next
acquirer gets in.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files import fs, identity
from holdfast.backends.files.lock import spare
from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.errors import ClaimUnknownError, StoreError, UnavailableError
from support.faulty import (
    ERRNOS,
    FaultyTable,
    check_nothing_leaked,
    descriptors,
    faults_of,
    installed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADER = b'{"type":"session"}\n'
LINE = b'{"a":1}\n'


def nothing(path: str) -> None:
    del path


def existing(path: str) -> None:
    with open(path, "wb") as file:
        file.write(HEADER)


def torn(path: str) -> None:
    with open(path, "wb") as file:
        file.write(HEADER + b'{"to')


def dead_claim(path: str) -> None:
    existing(path)
    me = identity.me()
    with open(path + ".lock", "w") as file:
        json.dump({"pid": 1, "claimId": "x", "bootId": me.boot, "host": me.host}, file)


def earlier_boot(path: str) -> None:
    existing(path)
    with open(path + ".lock", "w") as file:
        json.dump({"claimId": "x", "bootId": "y", "host": identity.me().host}, file)


def with_spare(path: str) -> None:
    """As after any earlier hold."""
    existing(path)
    WriteLock(path).acquire_sync().release()


def no_spare(path: str) -> None:
    """So that claims get an inode of their own."""
    existing(path)
    os.symlink("elsewhere", path + ".claim")


def spare_still_linked(path: str) -> None:
    """Its owner died while it held the lock."""
    dead_claim(path)
    with open(path + ".lock", "rb") as file:
        left = file.read()
    os.unlink(path + ".lock")
    fd = os.open(path + ".claim", os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(fd, left.ljust(spare.SIZE))
    os.close(fd)
    os.link(path + ".claim", path + ".lock")


SCENES = [nothing, existing, torn, dead_claim, earlier_boot]
SCENES += [with_spare, no_spare, spare_still_linked]


def run_blocking(path: str) -> int:
    with WriteLock(path, timeout_s=20, header=lambda: HEADER) as hold:
        return hold.append(LINE, sync=True)


def run_on_a_loop(path: str) -> int:
    async def work() -> int:
        async with WriteLock(path, timeout_s=20, header=lambda: HEADER) as hold:
            return hold.append(LINE, sync=True)

    return LOOPS[-1].run_until_complete(work())


LOOPS: list[asyncio.AbstractEventLoop] = []


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    LOOPS.append(asyncio.new_event_loop())
    yield
    LOOPS.pop().close()


@pytest.mark.parametrize("run", [run_blocking, run_on_a_loop])
@pytest.mark.parametrize("tmpfile", [True, False], ids=["O_TMPFILE", "private-name"])
@pytest.mark.parametrize("scene", SCENES)
def test_every_call_may_fail(
    tmp_path: Path,
    scene: Callable[[str], None],
    tmpfile: bool,
    run: Callable[[str], int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)

    def table(**fault: Any) -> FaultyTable:
        made = FaultyTable(**fault)
        made.refuse_tmpfile = not tmpfile
        return made

    def fresh(name: str) -> str:
        (tmp_path / name).mkdir()
        path = str(tmp_path / name / "s.jsonl")
        scene(path)
        return path

    counting, counted = table(), fresh("counted")
    with installed(counting):
        run(counted)
    calls = counting.calls
    assert len(calls) > 25
    # Every errno for one way of the four; the others differ only in who waits and what is linked.
    codes = ERRNOS if run is run_blocking and tmpfile else ERRNOS[:1]
    for fault, where in faults_of(calls, codes):
        check_one_fault(fresh(where), table(**fault), run, where)


def check_one_fault(
    path: str, table: FaultyTable, run: Callable[[str], int], where: str
) -> None:
    before, error, end = descriptors(), None, -1
    with installed(table):
        try:
            end = run(path)
        except (StoreError, ClaimUnknownError) as caught:
            error = caught
        # Anything else is not typed, and fails the test with its own traceback.
    check_nothing_leaked(path, before, where)
    left = {name for name in os.listdir(os.path.dirname(path)) if ".lock" in name}
    if error is None:
        assert not left, f"{where}: succeeded, and left {left}"
    elif left:
        assert left == {"s.jsonl.lock"}, f"{where}: a stray was left: {left}"
        with open(path + ".lock") as file:  # The one of the scene, still dead.
            assert json.load(file)["claimId"] == "x", f"{where}: our claim was left"

    content = b""
    if os.path.exists(path):
        with open(path, "rb") as file:
            content = file.read()
    assert content == b"" or content.startswith(HEADER), f"{where}: half a header"
    appended = content.count(LINE)
    if error is None:
        assert appended == 1, f"{where}: said it was written"
        assert end == len(content)
    elif isinstance(error, UnavailableError) and error.landed is None:
        assert appended <= 1
    else:
        assert appended == 0, f"{where}: said that nothing was written"
        assert content in {b"", HEADER, HEADER + b'{"to'}, f"{where}: not cut back"

    # Whatever happened, the next one gets in, at the first look.
    with WriteLock(path, timeout_s=0, header=lambda: HEADER) as hold:
        hold.append(b'{"next":1}\n', sync=False)
    assert not [name for name in os.listdir(os.path.dirname(path)) if ".lock" in name], where


def test_the_table_is_what_is_called() -> None:
    """A file call that bypasses the table would never be made to fail."""
    folder = Path(fs.__file__).parent
    mine = [folder / "identity.py", *(folder / "lock").glob("*.py")]
    calls = [f"os.{name}(" for name in vars(fs.Fs()) if hasattr(os, name)]
    calls += ["fcntl.flock(", "fcntl.fcntl(", "open("]
    for module in mine:
        with module.open() as file:
            for number, text in enumerate(file, 1):
                words = text.split()
                assert not any(word.startswith(call) for word in words for call in calls), (
                    f"{module.name}:{number}: {text}"
                )

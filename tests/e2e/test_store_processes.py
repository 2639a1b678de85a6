"""Many processes come and go on one state directory, and none is turned away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHILD = """
import asyncio, sys, holdfast
async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[2])):
        async with holdfast.open(sys.argv[1]) as hf:
            await hf.store.control.turns()
asyncio.run(main())
"""


FIRST_STARTERS = """
import multiprocessing, sys
from holdfast._core.settings import parse
from holdfast.backends.files.store import FilesStore

def start(barrier, states, errors):
    for state in states:
        barrier.wait()
        try:
            FilesStore(state, parse({})).control.close_now()
        except Exception as error:
            errors.put(repr(error))
    errors.put(None)

states = [f"{sys.argv[1]}/{n}" for n in range(60)]
barrier, errors = multiprocessing.Barrier(4), multiprocessing.Queue()
for _ in range(4):
    multiprocessing.Process(target=start, args=(barrier, states, errors)).start()
ended = 0
while ended < 4:
    if (said := errors.get()) is None:
        ended += 1
    else:
        print(said)
"""


def test_several_first_starters_agree_on_one_store(tmp_path: Path) -> None:
    """Each of 60 new directories is opened by four processes at one moment."""
    told = subprocess.run(
        [sys.executable, "-c", FIRST_STARTERS, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert told.stdout == ""
    assert len(list(tmp_path.glob("*/control.db"))) == 60
    assert not list(tmp_path.glob("*/control.db.*")), "a stray was left"


def test_opening_and_closing_at_once_turns_nobody_away(tmp_path: Path) -> None:
    """The last one out holds SQLite's exclusive lock for a moment; the next one in waits."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "state"), "15"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.close()
    ended = [child.wait(60) for child in children]
    for child in children:
        child.stdout.close()  # type: ignore[union-attr]
    assert ended == [0, 0, 0, 0]

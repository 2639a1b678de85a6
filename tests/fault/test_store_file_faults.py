"""
What stands beside the transcripts, whichever system call fails: the live logs, the secret,
and the publishing of a file.

Method: see `support/faulty.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from holdfast._runtime.live import Live
from holdfast.backends.files import fs, secret
from holdfast.backends.files.live import FilesLive
from holdfast.backends.files.lock import latch
from holdfast.errors import HoldfastError
from holdfast.types import TurnId
from support.faulty import FaultyTable, descriptors, faults_of, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TURN = TurnId("t1")
HEADER = b'{"type":"session"}\n'


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def each_fault(
    tmp_path: Path, work: Callable[[Path], Any], scene: Callable[[Path], None] = lambda _: None
) -> Iterator[tuple[Path, Any, HoldfastError | OSError | None, str]]:
    """
    Run *work* in a fresh directory once for each fault it can meet.

    Yields the directory, what *work* returned, what it raised, and the fault's name.
    """

    def fresh(name: str) -> Path:
        made = tmp_path / name
        made.mkdir()
        scene(made)
        return made

    counting = FaultyTable()
    directory = fresh("counted")
    with installed(counting):
        work(directory)
    assert counting.calls
    for fault, where in faults_of(counting.calls):
        directory, table = fresh(where), FaultyTable(**fault)
        before, result, error = descriptors(), None, None
        with installed(table):
            try:
                result = work(directory)
            except (HoldfastError, OSError) as caught:
                error = caught
        assert table.fell, f"{where}: nothing failed"
        assert descriptors() == before, f"{where}: a descriptor leaked"
        assert fs._open == set(), f"{where}: a descriptor is still remembered"
        yield directory, result, error, where


# ----------------------------------------------------------------------------- live output


def show(directory: Path) -> None:
    """As a run does: the view may be lost, the turn may not."""

    async def run() -> None:
        live = Live(FilesLive(str(directory)), TURN, 3)  # type: ignore[arg-type]
        live.emit("started", attempt=1)
        live.text("one")
        live.text("two")
        live.close()

    asyncio.run(run())


def follow(directory: Path) -> list[Any]:
    live = FilesLive(str(directory))
    tail = live.tail(TURN)
    events = []
    while more := tail.read(live.newest([TURN]).get(TURN, 0)):
        events += more
    return [(event.log_id, event.kind) for event in events]


WHOLE = [((3, 1), "started"), ((3, 2), "text"), ((3, 3), "text")]


def test_a_turn_goes_on_without_its_live_output(tmp_path: Path) -> None:
    for directory, _, error, where in each_fault(tmp_path, show):
        assert error is None, f"{where}: a view has cost a turn: {error!r}"
        told = follow(directory)
        assert told == WHOLE[: len(told)], f"{where}: an event is missing in between"
        # What could not be shown by this token, the next one shows.
        show(directory)


def test_a_follower_is_told_or_gets_a_typed_error(tmp_path: Path) -> None:
    for directory, told, error, where in each_fault(tmp_path, follow, show):
        assert error is None or isinstance(error, HoldfastError), f"{where}: {error!r}"
        if error is None:
            assert told == WHOLE, where
        assert follow(directory) == WHOLE


def sweep(directory: Path) -> int:
    live = FilesLive(str(directory))
    return live.remove(lambda turn_id: turn_id in live.turn_ids())


def test_a_sweep_that_fails_is_made_again(tmp_path: Path) -> None:
    for directory, _, error, where in each_fault(tmp_path, sweep, show):
        assert error is None or isinstance(error, HoldfastError), f"{where}: {error!r}"
        sweep(directory)
        assert os.listdir(directory / "live") == [], where


# ---------------------------------------------------------------------------------- secret


def make_secret(directory: Path) -> tuple[str, bool]:
    return secret.published(str(directory / "token"))


def made_before(directory: Path) -> None:
    make_secret(directory)


@pytest.mark.parametrize("scene", [lambda _: None, made_before], ids=["first", "found"])
def test_all_first_starters_agree_on_a_secret(
    tmp_path: Path, scene: Callable[[Path], None]
) -> None:
    for directory, result, error, where in each_fault(tmp_path, make_secret, scene):
        assert error is None or isinstance(error, HoldfastError), f"{where}: {error!r}"
        found, _ = make_secret(directory)
        assert len(found) >= 40, f"{where}: half a secret was published"
        if error is None:
            assert result[0] == found, f"{where}: two secrets were told"
        assert make_secret(directory) == (found, False)
        assert stat.S_IMODE(os.stat(directory / "token").st_mode) == 0o600
        assert os.listdir(directory) == ["token"], f"{where}: a stray secret was left"


def test_half_a_secret_is_never_published(tmp_path: Path) -> None:
    """The disk fills in the middle of it: write() takes less than it was given."""

    class Short(FaultyTable):
        def __getattr__(self, name: str) -> Callable[..., Any]:
            call = super().__getattr__(name)
            if name != "write":
                return call
            return lambda fd, data: call(fd, data[:5]) if len(data) > 5 else call(fd, data)

    path = str(tmp_path / "token")
    with installed(Short()):
        found, _ = secret.published(path)
    assert len(found) >= 40
    assert secret.published(path) == (found, False)


# --------------------------------------------------------------------------- publish_file


def publish(directory: Path) -> None:
    latch.publish_file(str(directory / "s.jsonl"), lambda: HEADER)


def test_a_new_transcript_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    for directory, _, error, where in each_fault(tmp_path, publish):
        path = directory / "s.jsonl"
        if error is None:
            assert path.read_bytes() == HEADER, where
        if path.exists():
            assert path.read_bytes() == HEADER, f"{where}: half a header"
        publish(directory)
        assert path.read_bytes() == HEADER
        assert os.listdir(directory) == ["s.jsonl"], f"{where}: a stray was left"

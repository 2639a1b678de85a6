"""
A transcript stays whole, and what is said about it true, whichever system call fails.

Method: see `support/faulty.py`.  After each fault the file itself is the judge, read without
our code; then the same store object does the same thing again, and must have learnt nothing
wrong from the first time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.backends.files.transcript.transcripts import FilesTranscripts
from holdfast.errors import HoldfastError, UnavailableError
from holdfast.types import Session, SessionId
from support.faulty import (
    ERRNOS,
    FaultyTable,
    check_nothing_leaked,
    descriptors,
    faults_of,
    installed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SESSION = Session(SessionId("s1"), "main", "s.jsonl", 0, 0, "2026-01-01T00:00:00Z")


def entry(number: int) -> dict[str, Any]:
    parent = None if number == 0 else f"e{number - 1}"
    return {"type": "custom", "id": f"e{number}", "parentId": parent, "n": number}


HEADER = {"type": "session", "version": 3, "id": "s1", "timestamp": "t", "cwd": "/"}
STANDING = [entry(0), entry(1), entry(2)]
BATCH = [entry(3), entry(4)]
TORN = b'{"type":"custom","id":"e9","par'


# ---------------------------------------------------------------------------------- scenes


def missing(store: FilesTranscripts, path: str) -> None:
    del store, path


def standing(store: FilesTranscripts, path: str) -> None:
    with open(path, "wb") as file:
        file.writelines(json.dumps(each).encode() + b"\n" for each in [HEADER, *STANDING])


def torn(store: FilesTranscripts, path: str) -> None:
    standing(store, path)
    with open(path, "ab") as file:
        file.write(TORN)


def known(store: FilesTranscripts, path: str) -> None:
    """This process has read it before, and keeps what it read."""
    standing(store, path)
    LOOPS[-1].run_until_complete(load(store))


# ------------------------------------------------------------------------------ operations


async def held(store: FilesTranscripts) -> Any:
    return await store.acquire(SESSION, timeout_s=20, token=None, run_id=None, lane=None)


async def load(store: FilesTranscripts) -> list[str]:
    holding = await held(store)
    try:
        return list(holding.load().entries)
    finally:
        holding.release()


async def append(store: FilesTranscripts) -> int:
    """As a turn does: load, mark, give back; take again, compare, append with a sync."""
    holding = await held(store)
    try:
        holding.load()
        mark = holding.mark()
    finally:
        holding.release()
    holding = await held(store)
    try:
        assert (await holding.advance(mark)).kind == "same"
        appended = holding.append(BATCH, final=True)
        assert appended.synced
        return int(appended.end_offset)
    finally:
        holding.release()


async def read(store: FilesTranscripts) -> list[str]:
    return list(store.read(SESSION).entries)


async def page(store: FilesTranscripts) -> list[str]:
    first = store.page(SESSION, None, limit=2)
    rest = store.page(SESSION, first.next, limit=2)
    return [str(each["id"]) for _, each in first.entries + rest.entries]


async def last(store: FilesTranscripts) -> list[str]:
    return [str(each["id"]) for _, each in store.page(SESSION, None, limit=2, last=3).entries]


async def end(store: FilesTranscripts) -> int:
    return store.end(SESSION)


CASES: list[tuple[Any, Any]] = [
    *((load, scene) for scene in (missing, standing, torn, known)),
    *((append, scene) for scene in (missing, standing, torn, known)),
    *((read, scene) for scene in (standing, torn)),
    *((page, scene) for scene in (missing, standing, torn)),
    *((last, scene) for scene in (missing, standing, torn)),
    *((end, scene) for scene in (missing, standing)),
]

LOOPS: list[asyncio.AbstractEventLoop] = []


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    LOOPS.append(asyncio.new_event_loop())
    yield
    LOOPS.pop().close()


@pytest.mark.parametrize(
    ("operation", "scene"), CASES, ids=[f"{o.__name__}-{s.__name__}" for o, s in CASES]
)
def test_a_transcript_stays_whole_whatever_fails(
    tmp_path: Path, operation: Any, scene: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)

    def fresh(name: str) -> tuple[FilesTranscripts, str]:
        state = tmp_path / name
        state.mkdir()
        store = FilesTranscripts(str(state), durability="turn", max_hold_ms=1000)
        path = str(state / "s.jsonl")
        scene(store, path)
        return store, path

    counting = FaultyTable()
    store, _ = fresh("counted")
    with installed(counting):
        wanted = LOOPS[-1].run_until_complete(operation(store))
    assert counting.calls
    faults = 0
    # Every errno where something is written; what reads differs only in what it then says.
    codes = ERRNOS if operation is append else ERRNOS[:2]
    for fault, where in faults_of(counting.calls, codes):
        store, path = fresh(where)
        check_one_fault(store, path, FaultyTable(**fault), operation, wanted, where)
        faults += 1
    assert faults >= 2


def check_one_fault(
    store: FilesTranscripts,
    path: str,
    table: FaultyTable,
    operation: Any,
    wanted: Any,
    where: str,
) -> None:
    started = content(path)
    before, error, result = descriptors(), None, None
    with installed(table):
        try:
            result = LOOPS[-1].run_until_complete(operation(store))
        except HoldfastError as caught:
            error = caught
        # Anything else is not typed, and fails the test with its own traceback.
    assert table.fell, f"{where}: nothing failed"
    check_nothing_leaked(path, before, where)
    if error is None and operation is not append:
        assert result == wanted, f"{where}: another answer, and no error"

    # What stands is what stood, and then all of the batch or nothing of it.
    now = content(path)
    if started:
        assert now.startswith(started), f"{where}: what stood there has changed"
    entries = parsed(now)
    ids = [each["id"] for each in entries[1:]] if entries else []
    stood = [each["id"] for each in STANDING] if started else []
    written = ids[len(stood) :]
    assert ids[: len(stood)] == stood
    unknown = isinstance(error, UnavailableError) and error.landed is None
    if operation is not append:
        assert written == []
    elif error is None:
        assert written == ["e3", "e4"], f"{where}: it was said to be written"
        assert result == len(now)
    elif unknown:
        assert written in ([], ["e3", "e4"]), f"{where}: half a batch"
    else:
        assert written == [], f"{where}: it was said not to be written"

    # The same store, a working medium: it goes on where the file really is.
    again = LOOPS[-1].run_until_complete(operation(store))
    if operation is not append:
        assert again == wanted
    now = content(path)
    ids = [each["id"] for each in parsed(now)[1:]] if now else []
    assert ids == stood + written + (["e3", "e4"] if operation is append else []), where
    if now:
        loaded = LOOPS[-1].run_until_complete(load(store))
        assert loaded == list(dict.fromkeys(ids)), f"{where}: it remembers another file"
    left = [name for name in os.listdir(os.path.dirname(path)) if ".lock" in name]
    assert left == [], f"{where}: a claim was left"


def content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def parsed(data: bytes) -> list[dict[str, Any]]:
    """Every line must parse, but the one that was torn before we came."""
    return [json.loads(line) for line in data.split(b"\n") if line not in {b"", TORN}]

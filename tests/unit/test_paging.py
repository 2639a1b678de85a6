"""Pages of a transcript: nothing twice, nothing left out, whatever the sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.backends.files.transcript import paging
from holdfast.errors import BadRequestError

HEADER = b'{"type": "session", "version": 3, "id": "s"}\n'


def transcript(path: Path, texts: list[str], torn: bytes = b"") -> list[dict[str, Any]]:
    entries = [{"type": "message", "id": str(n), "text": text} for n, text in enumerate(texts)]
    lines = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    path.write_bytes(HEADER + lines + torn)
    return entries


def paged(path: Path, limit: int) -> list[Any]:
    found: list[Any] = []
    at = 0
    while True:
        page = paging.page(str(path), 1, at, limit)
        found += [entry for _, entry in page.entries]
        assert len(page.entries) <= limit
        if page.entries:
            last = paging.offset_of(page.entries[-1][0], 1)
            assert paging.offset_of(page.next, 1) >= last
        at = paging.offset_of(page.next, 1)
        if not page.entries:
            return found


@given(
    texts=st.lists(st.text(max_size=40), max_size=30),
    limit=st.integers(1, 7),
    torn=st.sampled_from([b"", b'{"type": "mess', b"\n\n"]),
    chunk=st.sampled_from([7, 64, 262_144]),
)
def test_all_pages_together_are_the_transcript(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    limit: int,
    torn: bytes,
    chunk: int,
) -> None:
    path = tmp_path_factory.mktemp("paging") / "t.jsonl"
    entries = transcript(path, texts, torn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "CHUNK_BYTES", chunk)
        assert paged(path, limit) == entries
        for count in (1, 3, 1_000):
            last = paging.last_entries(str(path), 1, count)
            assert [entry for _, entry in last.entries] == entries[-count:]
            on = paging.page(str(path), 1, paging.offset_of(last.next, 1), 10)
            assert on.entries == ()


def test_each_cursor_goes_on_behind_its_entry(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    entries = transcript(path, ["a", "b", "c"])
    whole = paging.page(str(path), 4, 0, 10)
    for number, (cursor, _) in enumerate(whole.entries):
        rest = paging.page(str(path), 4, paging.offset_of(cursor, 4), 10)
        assert [entry for _, entry in rest.entries] == entries[number + 1 :]


def test_a_large_page_is_cut_short_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.jsonl"
    monkeypatch.setattr(paging, "PAGE_BYTES", 1_000)
    monkeypatch.setattr(paging, "CHUNK_BYTES", 500)
    entries = transcript(path, ["x" * 400] * 20)
    assert len(paging.page(str(path), 1, 0, 100).entries) < 20
    assert paged(path, 100) == entries


@pytest.mark.parametrize("start", [1, 50, 10_000])
def test_an_offset_of_another_file_starts_over(tmp_path: Path, start: int) -> None:
    """Inside a line, or beyond the end: the file is not the one that the cursor was of."""
    path = tmp_path / "t.jsonl"
    entries = transcript(path, ["a", "b"])
    page = paging.page(str(path), 1, start, 10)
    assert [entry for _, entry in page.entries] == entries


@pytest.mark.parametrize(
    "bad", ["", "x", "1", "1.", ".1", "1.-2", "1.2.3", "1." + "9" * 19, "١.٢"]
)
def test_what_is_no_cursor_is_refused(bad: str) -> None:
    with pytest.raises(BadRequestError):
        paging.offset_of(bad, 1)


def test_a_transcript_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    path = str(tmp_path / "none.jsonl")
    assert paging.page(path, 3, 0, 10).next == "3.0"
    assert paging.last_entries(path, 3, 5).entries == ()
    assert paging.size_of(path) == 0

"""
A crash costs at most the entry that was being written, and the next writer costs nothing.

Method: write any entries, cut the file at any byte (append-only files lose suffixes), let the
next writer append as it does, and read all of it back.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import example, given

from holdfast._core.jsonl import encode, lines

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
entries = st.dictionaries(st.text(), scalars | st.lists(scalars), max_size=4)
Entry = dict[str, Any]


@given(before=st.lists(entries), after=st.lists(entries, min_size=1), data=st.data())
@example(before=[{"a": "\u2028\x85\x0b\r"}], after=[{}], data=None)
def test_a_cut_costs_at_most_the_last_entry(
    before: list[Entry], after: list[Entry], data: st.DataObject | None
) -> None:
    whole = encode(before)
    cut = data.draw(st.integers(0, len(whole))) if data else len(whole)
    left = whole[:cut]
    torn = bool(left) and not left.endswith(b"\n")

    resumed = left + (b"\n" if torn else b"") + encode(after)

    read = [line.entry for line in lines(resumed)]
    kept = left.count(b"\n")
    assert read[:kept] == before[:kept]
    assert read[kept + torn :] == after
    assert resumed.startswith(left), "the file did not only grow"


@given(st.lists(entries))
def test_lines_say_where_they_start(batch: list[Entry]) -> None:
    data = encode(batch)
    for line in lines(data, offset=100):
        start = line.offset - 100
        assert data[start : start + len(line.raw)] == line.raw


@given(st.binary())
def test_any_bytes_can_be_read(data: bytes) -> None:
    """Damage is told, never raised."""
    for line in lines(data):
        assert line.entry is None or isinstance(line.entry, dict)

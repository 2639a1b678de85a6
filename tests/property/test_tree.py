"""No line that a stranger can write keeps a transcript from being read."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast._core import jsonl
from holdfast._core.tree import Tree
from holdfast._core.verify import verify

VALUES = st.sampled_from(
    [None, True, 1, 1.5, "", "a", "b", "message", "leaf", "custom", "compaction", "side", [],
     ["a"], {}, {"a": 1}]
)  # fmt: skip
FIELDS = (
    "type", "id", "parentId", "targetId", "appendMode", "customType", "data", "summary",
    "firstKeptEntryId", "content",
)  # fmt: skip
STAMP = ("turn", "attempt", "token", "final", "seed", "salvaged", "promoted")


def some(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, VALUES))


ENTRIES = st.builds(
    lambda entry, stamp, message: {**entry, "holdfast": stamp, "message": message},
    some(*FIELDS), some(*STAMP) | VALUES, some("role", "content") | VALUES,
)  # fmt: skip


@given(st.lists(ENTRIES, max_size=8))
def test_every_line_can_be_read(entries: list[dict[str, Any]]) -> None:
    data = jsonl.encode([{"type": "session", "version": 3, "id": "s"}, *entries])
    tree = Tree()
    tree.feed(jsonl.lines(data))
    tree.history()
    tree.history(without={"a"})
    tree.seeded("a")
    assert tree.leaf is None or tree.leaf in tree.entries
    assert verify(data).entries == len(entries)

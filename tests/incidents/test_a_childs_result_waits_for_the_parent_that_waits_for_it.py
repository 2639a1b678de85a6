"""
A child's result waits for the parent that waits for it (openclaw #90178, #91650, #87537).

What happened there: a child that was done announced its result through its parent's lane.
The lane was taken: results expired, 135 in five days, or were tried 219 times in a storm.
And where the parent itself waited for the child, both waited for good.

What happens here: who waits for a child gives its slot back, and is told the result where it
waits.  A child that asks the session of who waits for it is refused at once, with the cycle;
of twelve children at once every result arrives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast.backends.files.control import waits
from holdfast.lab.scenarios import children
from support.played import played, soon

NAME = "a-storm-of-children"


async def test_every_result_arrives_and_no_cycle_is_closed(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["its_child_was"] == "replied: refused;"
    assert saw.facts["cycle_is_named"]
    assert saw.facts["results_that_reached_the_parent"] == children.CHILDREN
    assert saw.facts["parents_runs"] == 1


async def test_a_cycle_that_nobody_looks_for_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(*_: Any) -> None: ...

    monkeypatch.setattr(waits, "refuse_cycle", blind)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["parent_of_one"] == "nothing"

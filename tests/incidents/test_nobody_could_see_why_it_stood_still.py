"""
Nobody could see why it stood still (openclaw #34636, #113019, #83510, #13744).

What happened there: doctor called locks of a healthy gateway stale, and not those that were;
a lock named no run; the watchdog took locks away without an event; all of the field's evidence
was cut out of logs by their words; and a local fault was shown as "All models failed".

What happens here: doctor finds nothing in a busy healthy store.  Of a process that is stopped
in the middle of a write it names the pid, and `why` says what to do; the lock names turn and
lane; what was taken from whom is in the event log; and a transcript that cannot be read is
told as that, without asking any model.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.played import played

NAME = "nobody-could-see-why"
BLIND = """
from holdfast._core.explaining import Explained
Explained._broken = lambda _: []
"""
#: Whoever has a lock may be dead.
NERVOUS = """
from holdfast.backends.files.look import checkup
from holdfast.cli.doctor import _Checkup

real = _Checkup._locks

def owners(self):
    yield from real(self)
    yield checkup.Finding("stale_lock", "warning", "it may be stale")

_Checkup._locks = owners
"""


async def test_the_cause_is_named_and_nothing_else(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["doctor_finds_when_nothing_is_wrong"] == []
    assert saw.facts["doctor_finds"] == ["frozen_holder"]
    assert saw.facts["why_says_what_is_broken"] == ["frozen"]
    assert saw.facts["models_asked_for_it"] == 1, "once, before it was damaged"


@pytest.mark.parametrize(
    ("what", "fact", "found"),
    [
        (BLIND, "why_says_what_is_broken", []),
        (NERVOUS, "doctor_finds_when_nothing_is_wrong", ["stale_lock"]),
    ],
    ids=["why sees nothing", "doctor sees ghosts"],
)
async def test_commands_that_see_less_or_more_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, fact: str, found: list[str]
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(what)
    monkeypatch.setenv("PYTHONPATH", str(site))
    saw = await played(NAME, tmp_path / "state")
    assert not saw.ok
    assert saw.facts[fact] == found

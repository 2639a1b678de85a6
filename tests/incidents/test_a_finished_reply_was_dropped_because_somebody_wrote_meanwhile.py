"""
A finished reply was dropped because somebody had written meanwhile (openclaw #84059, #87183,
#86508, #86845).

What happened there: the lock was given back for the model's call, another lane wrote, and the
file's fingerprint was another when the reply was done.  68 replies of one install were
dropped so, and 13 jobs in 42 hours.

What happens here: a mirror, a stranger, a backup, a heartbeat and a job come while a reply
streams; what they wrote stays, the reply goes after it, and no model is asked twice.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.backends.files.transcript.held import HeldFile
from support.played import played

NAME = "somebody-wrote-meanwhile"


async def test_the_reply_goes_after_what_was_written(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts == {
        "reply": "replied", "heartbeat_and_job": ["replied", "replied"],
        "model_calls_for_it": 1, "takeovers": 0, "seen_by_the_next": 3,
        "written_meanwhile_and_still_there": 2, "problems": [],
    }  # fmt: skip


async def test_a_fence_that_takes_an_append_for_a_takeover_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HeldFile.advance

    async def suspicious(held: HeldFile, *given: Any) -> Any:
        change = await real(held, *given)
        if change.kind == "appended":
            return replace(change, kind="rewritten", detail="its size has changed")
        return change

    monkeypatch.setattr(HeldFile, "advance", suspicious)
    saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["model_calls_for_it"] > 1

"""
A stopped turn kept the session until somebody restarted it (hermes-agent #110985, #82349).

What happened there: `/stop` cleared the busy sign and not the lease, or a waiter that went on
without the lease overwrote its token, so that its holder could not give it back.  Nothing was
running, every message was turned away with "another turn is still running", and the process
lived: nobody but a restart took the lease away.

What happens here: a stop is over within its bound although the model hears nothing of it; a
lease that no run has is found by the very process that leaked it, and its turn runs; and who
has another token ends nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from holdfast._runtime.reaping import Reaper
from holdfast._runtime.run import Run
from holdfast._runtime.runner import Runner
from support.played import played, soon

NAME = "a-lease-that-leaked"


async def test_no_lease_outlives_its_run(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["stopped"] == "cancelled"
    assert saw.facts["asked_to_end_and_deaf_to_it"]
    assert saw.facts["the_next_message"] == "replied"
    assert saw.facts["a_wrong_token_ends_nothing"] == "replied"
    assert saw.facts["leaked_by_the_living"]
    assert saw.facts["the_leaked_turn"] == "replied"
    assert saw.facts["leases_at_the_end"] == 0


async def test_a_lease_that_nobody_looks_for_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As there: the process lives, so what it holds is held."""
    monkeypatch.setattr(Runner, "runs", lambda *_: True)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["the_leaked_turn"] == "nothing"
    assert saw.facts["leases_at_the_end"] == 1


async def test_a_stop_that_waits_for_who_does_not_listen_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_asks(run: Run, reason: str) -> None:
        del reason
        if run._asking is not None:
            run._asking.cancel()

    monkeypatch.setattr(Run, "abort", only_asks)
    monkeypatch.setattr(Reaper, "_is_deaf", lambda *_: False)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["stopped"] == saw.facts["the_next_message"] == "nothing"


async def test_a_token_that_nobody_looks_at_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.backends.files.control import leases

    def any_token(db: Any, turn_id: Any, token: int, *more: Any) -> Any:
        del token
        [held] = db.execute("SELECT token FROM leases WHERE turn_id = ?", (turn_id,)).fetchone()
        return real(db, turn_id, held, *more)

    real = leases.end
    monkeypatch.setattr(leases, "end", any_token)
    with soon():
        saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["a_wrong_token_ends_nothing"] == "failed"

"""A host is killed with a message taken in, at every step: both are answered, asked once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast
from e2e._merging_child import KEY, Steered, text_of
from holdfast.types import TurnId

CHILD = Path(__file__).with_name("_merging_child.py")


@pytest.mark.parametrize(
    "point",
    ["append.checked", "append.written", "steer.appended", "steer.taken", "commit.appended"],
)
async def test_a_killed_hosts_messages_are_all_answered_and_asked_once(
    tmp_path: Path, point: str
) -> None:
    state = str(tmp_path / "state")
    child = subprocess.run(
        [sys.executable, str(CHILD), state, point],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert child.returncode == -signal.SIGKILL, child.stderr
    first, second = child.stdout.split()
    agent = Steered()
    agent.go.set()
    async with holdfast.open(state, agent=agent) as hf:
        told = await (await hf.receipt(first)).outcome(30)
        also = await (await hf.receipt(second)).outcome(30)
        host = await hf.store.control.turn(TurnId(first))
        assert told.kind == "replied"
        assert told.text == "first + second"
        assert (also.kind, also.merged_into) == ("merged", first)
        session = await hf.session(KEY)
        page = hf.store.transcripts.page(session, None, limit=100)
        found = [entry for _, entry in page.entries]
        asked = [text_of(e["message"]) for e in found if e["message"]["role"] == "user"]
        assert asked == ["first", "second"]
        assert [e["id"] for e in found if e["holdfast"].get("final")] == [host.final_entry]
        assert len({e["id"] for e in found}) == len(found)
        roles = [e["message"]["role"] for e in found]
        assert roles == ["user", "assistant", "toolResult", "user", "assistant"]

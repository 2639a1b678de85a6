"""
A living owner made everybody else time out (openclaw 12.5, second; #86538, #86801, #13744,
#86530).

What happened there: a run held its session's lock, for 17 minutes, and whoever else wanted
the session waited 60 s for it: 161 time-outs and 41 refused lanes in one install, each told as
"All models failed" or not at all.  Once the lock even outlived `session.ended`.

What happens here: while a run streams nothing is locked, 161 writers have the lock one after
the other; and 41 messages of four lanes stand in a queue without a time-out, a person's in
their order.  Afterwards nothing is left behind.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from holdfast.backends.files.lock.write_lock import WriteLock
from holdfast.lab.scenarios import waiting
from support.played import played

NAME = "lock-timeouts"


async def test_nobody_times_out(tmp_path: Path) -> None:
    saw = await played(NAME, tmp_path)
    assert saw.ok, saw.story
    assert saw.facts["locks_had_by_others_meanwhile"] == 161
    assert saw.facts["outcomes"] == {"replied": 42}
    assert saw.facts["waits_that_ran_out"] == 0


async def test_a_run_that_keeps_the_lock_while_it_streams_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Locking(waiting.Echo):
        async def respond(self, prompt: Any, hook: Any) -> AsyncGenerator[Any, None]:
            [path] = tmp_path.glob("agents/*/sessions/*.jsonl")
            hold = None
            async for event in super().respond(prompt, hook):
                if hold is None:
                    hold = await WriteLock(path).acquire()
                if type(event).__name__ == "Final":
                    hold.release()
                yield event

    monkeypatch.setattr(waiting, "Echo", Locking)
    monkeypatch.setattr(waiting, "QUEUED", 4)
    saw = await played(NAME, tmp_path)
    assert not saw.ok
    assert saw.facts["locks_had_by_others_meanwhile"] < 161

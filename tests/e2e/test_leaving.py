"""
`holdfast serve` ends when it is told to, whatever its agents' calls do about being cancelled.

Method: agents in a file of their own, real processes, real signals; only whether it ends.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.serving import Served

AGENTS = """
import asyncio, sys, threading
from holdfast.types import Text, ToolCall

class Deaf:
    async def respond(self, prompt, hook):
        print("asked", file=sys.stderr, flush=True)
        yield Text("before ")
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

class Hung:
    async def respond(self, prompt, hook):
        async def run():
            print("asked", file=sys.stderr, flush=True)
            await asyncio.to_thread(threading.Event().wait)
        await hook(ToolCall("c1", "hangs", {}, "never", 600.0), run)
        yield Text("never")

deaf, hung = Deaf(), Hung()
"""
ENV = {"HOLDFAST_ABORT__SETTLE_MS": "200", "HOLDFAST_GATEWAY__DRAIN_MS": "200"}


@pytest.mark.parametrize("agent", ["deaf", "hung"])
def test_a_call_that_does_not_end_keeps_no_server_from_ending(
    tmp_path: Path, agent: str
) -> None:
    (tmp_path / "stubborn.py").write_text(AGENTS)
    served = Served(tmp_path / "s", "--agent", f"stubborn:{agent}", cwd=tmp_path, env=ENV)
    with served, served.client() as http:
        sent = http.post("/v1/sessions/main/messages", json={"text": "hello"})
        turn_id = sent.json()["turn_id"]
        while "asked" not in served.log.read_text():
            assert http.get("/healthz").status_code == 200
        served.signal(signal.SIGTERM)
        code, left = served.wait()
        assert (code, left) == (1, {"finished": 0, "put_back": 1, "waiting": 1})
        assert "did not end: leaving without it" in served.log.read_text()
        served.start()  # What it left stands in its place.
        with served.client() as again:
            assert again.get(f"/v1/turns/{turn_id}").json()["outcome"] is None
        served.signal(signal.SIGKILL)
        served.wait()

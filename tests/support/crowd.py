"""Processes for end-to-end tests: started, barriered, read line by line, and ended by pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Queue
from typing import Any, Self

SUPPORT = Path(__file__).parent
WITHIN_S = 60.0

Event = dict[str, Any]


class Member:
    """One `member.py` process.  *into*: where its events go as well, with it."""

    def __init__(self, *, into: Queue[tuple[Member, Event]] | None = None, **plan: Any) -> None:
        self._into = into
        plan = {"key": "main", "lanes": ["user"], "per_lane": 1, "name": "member", **plan}
        environment = {**os.environ, "PYTHONPATH": str(SUPPORT.parent)}
        self.process = subprocess.Popen(
            [sys.executable, str(SUPPORT / "member.py"), json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.events: list[Event] = []
        self._arrived: Queue[Event | None] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self._arrived.put(event)
            if self._into is not None:
                self._into.put((self, event))
        self._arrived.put(None)

    def until(self, wanted: Callable[[Event], bool] | str) -> Event:
        """Read on until an event is *wanted*; an earlier end of the process is an error."""
        while True:
            event = self._arrived.get(timeout=WITHIN_S)
            assert event is not None, f"ended early, exit code {self.process.wait(5)}"
            self.events.append(event)
            if event["event"] == wanted if isinstance(wanted, str) else wanted(event):
                return event

    def read_to_end(self) -> None:
        """Everything that an ended process has said."""
        while (event := self._arrived.get(timeout=WITHIN_S)) is not None:
            self.events.append(event)

    def go(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # It may have been killed already, as was planned.
            self.process.stdin.write("go\n")
            self.process.stdin.flush()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_stopped(self) -> None:
        """Until the process has stopped itself (SIGSTOP)."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def outcomes(self) -> list[Event]:
        return [event for event in self.events if event["event"] == "outcome"]

    def end(self) -> int:
        """Let it close, and wait for it."""
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.stdin.close()
        return self.process.wait(WITHIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

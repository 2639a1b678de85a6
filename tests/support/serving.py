"""`holdfast serve` as a process of its own, started, asked, stopped, killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from support import secrets

WITHIN_S = 30.0


class Served:
    """
    One serving process; a context manager that leaves none behind.

    Everything it says on stderr goes to `log`, which stays for whoever looks for secrets.
    """

    def __init__(
        self,
        state: Path,
        *options: str,
        port: int = 0,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.state, self.log = state, state.parent / f"{state.name}.serve.log"
        self._options, self._port, self._cwd = options, port, cwd
        self._own_env = dict(env or {})
        self._env = {**os.environ, **self._own_env}
        self.url = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """When this returns, connections are accepted."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "holdfast", "serve", "--json", "-v",
                 "--store", str(self.state), "--port", str(self._port), *self._options],
                stdout=subprocess.PIPE, stderr=log, text=True, env=self._env, cwd=self._cwd,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait(WITHIN_S)}: {self.log.read_text()}"
        self.url = json.loads(line)["serving"]
        self._port = int(self.url.rpartition(":")[2])  # The same one after a restart.
        path = self.state / "gateway.token"
        secrets.note(self.log, self._own_env, self.token if path.exists() else None)
        return self

    @property
    def token(self) -> str:
        return (self.state / "gateway.token").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=WITHIN_S, **more)

    def async_client(self, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, headers=self.headers, timeout=WITHIN_S, **more
        )

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> tuple[int, dict[str, Any]]:
        """Until it has ended.  Returns its exit code and what it said it left."""
        assert self.process is not None
        said, _ = self.process.communicate(timeout=WITHIN_S)
        lines = [json.loads(line) for line in said.splitlines()]
        return self.process.returncode, lines[-1].get("drained", {}) if lines else {}

    def stop(self) -> tuple[int, dict[str, Any]]:
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate(timeout=WITHIN_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any, str | None]]:
    """Server-Sent Events as (kind, data, id); comments are passed over."""
    kind, data, event_id = "", None, None
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            data = json.loads(value)
        elif name == "id":
            event_id = value
        elif not line and kind:
            yield kind, data, event_id
            kind, data, event_id = "", None, None

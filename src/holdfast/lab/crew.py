"""
Processes of the lab: the side that starts them, sets them off together, and hears them.

    with Crew() as crew:
        for name in names:
            crew.start(name, "holdfast.lab.race_lane:unguarded", path=path)
        crew.wait("ready")
        crew.order("go")                      # the barrier: a line into every pipe
        reports = crew.wait("done")

`child.py` is the other side, and has the protocol.  Leaving ends every process that was
started here and still runs: by its own pid, nobody else's.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

__all__ = ["GONE", "Crew", "Message"]

#: Starting is importing: two seconds of one core a process, and there may be many.
WAIT_S: Final = 120.0
GONE: Final = "gone"  #: The kind of the last message of every member, from here, not from it.
_STDERR_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Message:
    """What a member said.  `kind` is its first word, e.g. ``ready``."""

    member: str
    kind: str
    facts: Mapping[str, Any]


@dataclass(eq=False, slots=True)
class _Member:
    process: subprocess.Popen[str]
    hearing: threading.Thread
    errors: IO[str]


class Crew:
    """
    Args:
        told:
            called with every message, from the member's reading thread; None: they wait
            here for `wait`.
    """

    def __init__(self, told: Callable[[Message], None] | None = None) -> None:
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._told = told or self._messages.put
        self._members: dict[str, _Member] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in list(self._members):
            self.forget(name)

    def start(
        self, name: str, work: str, /, *, env: Mapping[str, str] | None = None, **arguments: Any
    ) -> int:
        """Start *work*, ``MODULE:FUNCTION``, with JSON *arguments*.  Returns its pid."""
        errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  Kept.
        process = subprocess.Popen(  # noqa: S603  This very interpreter, our own module.
            [sys.executable, "-m", "holdfast.lab.child", work, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(env or {})},
        )
        hearing = threading.Thread(target=self._hear, args=(name, process), daemon=True)
        self._members[name] = _Member(process, hearing, errors)
        hearing.start()
        return process.pid

    def order(self, word: str, *names: str) -> None:
        """Say *word* to *names*, or to everybody."""
        for name in names or self._members:
            pipe = self._members[name].process.stdin
            assert pipe is not None
            with suppress(BrokenPipeError):  # It ended; its last message tells how.
                pipe.write(word + "\n")
                pipe.flush()

    def kill(self, name: str) -> None:
        """SIGKILL, as the kernel's own killer would."""
        self._members[name].process.kill()

    def signal(self, name: str, signum: int) -> None:
        """Send it a signal, if it still is there."""
        self._members[name].process.send_signal(signum)

    def forget(self, name: str) -> None:
        """End it, if it still runs, and keep nothing of it."""
        member = self._members.pop(name)
        if member.process.poll() is None:
            member.process.kill()
        member.process.wait()
        member.hearing.join()
        member.errors.close()
        assert member.process.stdin is not None
        with suppress(BrokenPipeError):
            member.process.stdin.close()

    def wait(
        self,
        kind: str,
        *,
        timeout_s: float = WAIT_S,
        heard: Callable[[Message], None] | None = None,
    ) -> dict[str, Mapping[str, Any]]:
        """
        Wait until every member has said *kind*.

        Returns:
            What each said with it, by name.

        Raises:
            RuntimeError: one ended before, with what it left on stderr.
            TimeoutError: not within *timeout_s*.
        """
        said: dict[str, Mapping[str, Any]] = {}
        deadline_s = time.monotonic() + timeout_s
        while len(said) < len(self._members):
            message = self._next(deadline_s, kind, said)
            if message.kind == kind:
                said[message.member] = message.facts
            elif message.kind == GONE:
                if message.facts["exit_code"] or message.member not in said:
                    raise RuntimeError(self.last_words(message.member))
            elif heard is not None:
                heard(message)
        return said

    def last_words(self, name: str) -> str:
        """How a member ended, and what it left on stderr."""
        member = self._members[name]
        code = member.process.wait()
        member.errors.seek(0)
        said = member.errors.read()[-_STDERR_CHARS:].strip()
        return f"{name} (pid {member.process.pid}) ended with exit code {code}: {said}"

    def _next(self, deadline_s: float, kind: str, said: Mapping[str, Any]) -> Message:
        try:
            return self._messages.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            missing = ", ".join(self._members.keys() - said.keys())
            raise TimeoutError(f"no {kind!r} from {missing} in time") from None

    def _hear(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                facts = json.loads(line)
                self._told(Message(name, facts.pop("kind"), facts))
        self._told(Message(name, GONE, {"exit_code": process.wait()}))

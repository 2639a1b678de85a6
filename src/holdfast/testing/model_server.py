"""
A model server for tests: real HTTP on loopback, three providers' protocols, and a script.

    with ModelServer([Step.fail("unavailable"), Step.reply("Hello")]) as server:
        os.environ.update(server.environment)
        ...                       # model openai-chat:any, anthropic:any or google:any
    assert len(server.requests) == 2

It speaks OpenAI's Chat Completions, Anthropic's Messages and Google's generateContent on one
port, and every step in all of them.

Each request uses up one step.  A step with `when` answers requests whose last user text
contains it; the others are taken in the order of arrival, by requests that no keyed step fits.
When no step is left, the answer is ``reply to: <last user text>``, the same every time.

As a process: ``holdfast lab model-server --script FILE``, with one JSON object a line:

    {"tokens": ["Hel", "lo"], "delay_s": 0.1, "first_delay_s": 1}       an answer
    {"tokens": ["Hel", "lo"], "finish": "length"}                       …that was too long
    {"tool": "add", "arguments": {"a": 2, "b": 3}, "fragments": 4}      one tool call
    {"tool": "add", "also": [{"tool": "add"}]}                          …and another with it
    {"error": "rate_limit", "retry_after": "1"}                         an HTTP error
    {"error": "overloaded", "end": "error", "after": 2}                 …in mid-sentence
    {"end": "drop", "after": 2, "when": "weather", "repeat": true}      a lost connection
    {"end": "hang", "headers": false}                                   not a byte

`error`: unauthorized, rate_limit, quota, server_error, unavailable, overloaded,
context_length or bad_request.
`end`: done, eof (ends cleanly, without a finish reason), drop (the connection), hang, garbage
(a frame that is not JSON), error (a frame that is `error`); each after `after` tokens, by
default after all.  `headers`: false = drop or hang before the first byte.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Self

from holdfast.testing._model_script import Received, Step, read_script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from holdfast.testing._model_http import Loop

__all__ = ["ModelServer", "Received", "Step", "read_script"]

STOP_WITHIN_S = 10.0


class ModelServer:
    """
    See the module.  A context manager, for sync and async tests alike; the server has a thread.

    Args:
        script: steps to begin with; `add` adds more.
        token_delay_s: seconds between two tokens, where a step does not say.
        port: 0 = a free one.
        host: the address to listen on.
    """

    def __init__(
        self,
        script: Iterable[Step] = (),
        *,
        token_delay_s: float = 0.0,
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        self.token_delay_s = token_delay_s
        self.requests: list[Received] = []  #: In the order of arrival.
        self._steps = list(script)
        self._at = (host, port)
        self._changed = threading.Condition()
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._calls = 0

    # -------------------------------------------------------------------- its life

    @property
    def url(self) -> str:
        host, port = self._at
        return f"http://{host}:{port}"

    @property
    def base_url(self) -> str:
        """What goes into OPENAI_BASE_URL."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """What goes into ANTHROPIC_BASE_URL."""
        return self.url

    @property
    def google_url(self) -> str:
        """What goes into GOOGLE_GEMINI_BASE_URL."""
        return self.url

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead the SDKs of all three here, with keys that are none."""
        return {
            "OPENAI_BASE_URL": self.base_url,
            "OPENAI_API_KEY": "any",
            "ANTHROPIC_BASE_URL": self.anthropic_url,
            "ANTHROPIC_API_KEY": "any",
            "GOOGLE_GEMINI_BASE_URL": self.google_url,
            "GOOGLE_API_KEY": "any",
        }

    def start(self) -> None:
        """
        Listen.  When this returns, connections are accepted.

        Raises:
            OSError: the port is taken.
        """
        from holdfast.testing._model_http import Loop  # noqa: PLC0415

        assert self._thread is None, "started twice"
        listening = socket.create_server(self._at, backlog=1024)
        # asyncio turns Nagle off only for sockets that say they are TCP, and these don't; the
        # accepted ones inherit it.  Without it every answer waits 40 ms for a delayed ACK.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._at = listening.getsockname()[:2]
        self._loop = Loop(self, listening)
        self._thread = threading.Thread(target=self._loop.run, name="model-server", daemon=True)
        self._thread.start()
        self._loop.ready.wait()

    def stop(self) -> None:
        """Close all connections, whatever they wait for, and the port.  Idempotent."""
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        loop.stop()
        thread.join(STOP_WITHIN_S)
        assert not thread.is_alive(), f"the model server did not stop in {STOP_WITHIN_S} s"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------- for the test

    def add(self, *steps: Step) -> None:
        """Add steps to the script, at any time."""
        with self._changed:
            self._steps += steps

    def hold(self, *, after: int = 1, when: str | None = None) -> Step:
        """Add an echo that stops after some tokens; see `Step.held`."""
        step = Step(when=when).held(after=after)
        self.add(step)
        return step

    def wait(self, condition: Callable[[], bool], *, timeout_s: float = 5.0) -> bool:
        """Block until *condition* holds; it is looked at whenever a request gets further."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def wait_ended(self, count: int = 1, *, timeout_s: float = 5.0) -> bool:
        """Block until *count* requests have ended, one way or the other."""
        return self.wait(
            lambda: sum(r.end is not None for r in self.requests) >= count,
            timeout_s=timeout_s,
        )

    # -------------------------------------------------------------- for its own thread

    def receive(self, received: Received) -> Step:
        """Note a request, and take its step."""
        with self._changed:
            self.requests.append(received)
            self._changed.notify_all()
            fitting = [s for s in self._steps if s.when is not None and s.when in received.text]
            step = next(iter(fitting or [s for s in self._steps if s.when is None]), Step())
            if not step.repeat:
                self._steps = [each for each in self._steps if each is not step]
            return step

    def next_call_id(self) -> str:
        self._calls += 1
        return f"call_{self._calls}"

    def note(self, received: Received, *, sent: int = 0, end: str | None = None) -> None:
        with self._changed:
            received.tokens_sent += sent
            received.end = received.end or end
            self._changed.notify_all()

"""
A receiver of signed webhooks for tests: real HTTP on loopback, by a script, as bad as asked.

    with Receiver([Answer(500), Answer(drop="after")], secret=SECRET) as receiver:
        ...                        # channels.crm.url = receiver.url
    assert receiver.mismatches == []
    assert list(receiver.processed) == [...]      # each distinct key, in order

It does what a good receiver does: it acts on each key once and knows it again.  What it
answers is the script's: each request uses up one `Answer`.  One with `when` is for requests
whose body contains it; the others are taken in the order of arrival, by requests that no keyed
one fits.  When none is left it answers 200.

As a process: ``python -m holdfast.testing.receiver --script FILE``, one JSON object a line:

    {"status": 500}                          an answer; nothing is processed unless it is 2xx
    {"status": 429, "retry_after": "1"}
    {"delay_s": 0.5}                         slow
    {"drop": "before"}                       the connection closed, nothing processed
    {"drop": "after"}                        processed, and no answer
    {"late": true}                           processed, and answered when the client has gone
    {"status": 410, "when": "weather", "repeat": true}

``--chaos SEED`` makes the script up without end.  It says its URL first, and what it has seen
when it is told to stop (SIGTERM), each as one line of JSON; ``--log FILE`` gets one a request.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TextIO

from holdfast.channels.signing import BadSignatureError, verify
from holdfast.testing._receiver_script import Answer, Received, chaos, decoded, read_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType, TracebackType

__all__ = ["Answer", "Received", "Receiver", "chaos", "read_answers"]

LATE_MOST_S: Final = 60.0  #: For a client that never leaves.


class Receiver:
    """
    See the module.  A context manager; each request has a thread.

    Args:
        secret: checks the signatures; what is not signed with it gets 401.
        duplicate: the status for a key that was processed before.
        log: gets one line of JSON a request, before it is answered.
    """

    def __init__(
        self,
        answers: Iterable[Answer] = (),
        *,
        secret: str | None = None,
        duplicate: int = 200,
        port: int = 0,
        log: TextIO | None = None,
        more: Iterator[Answer] | None = None,
    ) -> None:
        self.received: list[Received] = []  #: In the order of arrival.
        self.processed: dict[str, str] = {}  #: Key → SHA-256 of its body; in order.
        self.mismatches: list[str] = []  #: Keys that came with other bytes than before.
        self._secret, self._duplicate, self._log = secret, duplicate, log
        self._answers, self._more = list(answers), more
        self._at = ("127.0.0.1", port)
        self._changed = threading.Condition()
        self._hashes: dict[str, str] = {}
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    # ---------------------------------------------------------------------------- its life

    @property
    def url(self) -> str:
        return f"http://{self._at[0]}:{self._at[1]}/hook"

    def start(self) -> None:
        """When this returns, connections are accepted.  Raises OSError: the port is taken."""
        assert self._server is None, "started twice"
        self._server = _Server(self._at, self)
        self._at = ("127.0.0.1", int(self._server.server_address[1]))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="receiver", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Accept no more; what hangs is left to its thread.  Idempotent."""
        server, thread, self._server, self._thread = self._server, self._thread, None, None
        if server is not None and thread is not None:
            server.shutdown()
            server.server_close()
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------------ for the test

    def add(self, *answers: Answer) -> None:
        with self._changed:
            self._answers += answers

    def wait(self, condition: Callable[[], bool], *, timeout_s: float = 20.0) -> bool:
        """Block until *condition* holds; it is looked at after each request."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def processed_by(self, to: str) -> list[str]:
        """The keys that were processed for one address, in that order."""
        return [each.key for each in self.received if each.processed and each.told["to"] == to]

    def summary(self) -> dict[str, Any]:
        with self._changed:
            return {
                "requests": len(self.received),
                "processed": len(self.processed),
                "mismatches": self.mismatches,
                "unsigned": sum(each.signed is False for each in self.received),
                "keys": self.processed,
            }

    # -------------------------------------------------------------------- for its own threads

    def take(self, body: bytes) -> Answer:
        with self._changed:
            fitting = [a for a in self._answers if a.when and a.when.encode() in body]
            plain = [a for a in self._answers if a.when is None]
            answer = next(iter(fitting or plain), None)
            if answer is None:
                return next(self._more) if self._more is not None else Answer()
            if not answer.repeat:
                self._answers.remove(answer)
            return answer

    def is_signed(self, headers: dict[str, str], body: bytes) -> bool | None:
        if self._secret is None:
            return None
        try:
            verify([self._secret], headers, body, time.time())
        except BadSignatureError:
            return False
        return True

    def note(self, key: str, body: bytes, answer: Answer, *, signed: bool | None) -> int:
        """Act on a request, once a key.  Returns the status it gets."""
        found = hashlib.sha256(body).hexdigest()
        acts = 200 <= answer.status < 300 and answer.drop != "before" and signed is not False
        with self._changed:
            known = key in self.processed
            if self._hashes.setdefault(key, found) != found:
                self.mismatches.append(key)
            if acts and not known:
                self.processed[key] = found
            received = Received(key, found, signed, decoded(body), acts and not known, answer)
            self.received.append(received)
            if self._log is not None:
                print(json.dumps(received.line()), file=self._log, flush=True)
            self._changed.notify_all()
        if signed is False:
            return 401
        return self._duplicate if acts and known else answer.status


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, at: tuple[str, int], receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(at, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        receiver = self.server.receiver
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = receiver.take(body)
        if answer.reached is not None and answer.gate is not None:
            answer.reached.set()
            answer.gate.wait()
        time.sleep(answer.delay_s)
        signed = receiver.is_signed(headers, body)
        status = receiver.note(headers.get("webhook-id", ""), body, answer, signed=signed)
        if answer.late:
            self._until_gone()
        self.close_connection = True
        if answer.drop is not None:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        with suppress(OSError):
            self.send_response(status)
            if answer.retry_after is not None:
                self.send_header("Retry-After", answer.retry_after)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()

    def _until_gone(self) -> None:
        self.connection.settimeout(LATE_MOST_S)
        with suppress(OSError):
            while self.connection.recv(1024):
                pass

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  The library's name.
        """Nothing is said on stderr."""


# ------------------------------------------------------------------------------ as a process


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="A receiver of signed webhooks, for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--chaos", type=int, metavar="SEED")
    parser.add_argument("--secret")
    parser.add_argument("--duplicate", type=int, default=200, metavar="STATUS")
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    stopped = threading.Event()

    def stop(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        stopped.set()

    # Before the line that says it is ready: whoever reads it may signal at once.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    log = given.log.open("a") if given.log is not None else None
    receiver = Receiver(
        read_answers(given.script.read_text()) if given.script is not None else (),
        secret=given.secret,
        duplicate=given.duplicate,
        port=given.port,
        log=log,
        more=chaos(given.chaos) if given.chaos is not None else None,
    )
    with receiver:
        _say({"url": receiver.url})
        stopped.wait()
    _say(receiver.summary())
    if log is not None:
        log.close()


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told), file=sys.stdout, flush=True)  # noqa: T201  What it is for.


if __name__ == "__main__":
    main()

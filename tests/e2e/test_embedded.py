"""
Who answers a `send`: nobody, somebody who dies, somebody who stays, or two at once.

Children stop themselves at named points and say so on stdout; nothing here waits by the clock.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import IO, Any, Self

import pytest

from holdfast._assemble_reading import open_reading
from holdfast._core.settings import LANES
from holdfast._core.verify import verify
from holdfast.cli import main
from holdfast.types import Turn

WITHIN_S = 60

#: Runs `holdfast …`, and does something when the first text of the reply has come.
AT_FIRST_TEXT = """
import os, signal, sys
from holdfast import _points
from holdfast.cli import main

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def stop():
    os.write(int(os.environ["TELL"]), b"speaking\\n")
    sys.stdin.readline()

_points.install("stream.first_text", {what})
sys.exit(main(sys.argv[1:]))
"""

SEND = "import sys; from holdfast.cli import main; sys.exit(main(sys.argv[1:]))"

#: A permanent runner; dies at the first text if it is told to.
RUNNER = """
import asyncio, os, signal, sys
from holdfast import _assemble, _points
from holdfast.testing.scripted import ScriptedModel

if sys.argv[2] == "dies":
    _points.install("stream.first_text", lambda: os.kill(os.getpid(), signal.SIGKILL))

async def serve():
    async with _assemble.open(sys.argv[1], agent=ScriptedModel()):
        os.write(int(os.environ["TELL"]), b"serving\\n")
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

asyncio.run(serve())
"""


class Child:
    """A Python process with a pipe of its own for what it tells us."""

    def __init__(self, code: str, *words: str, store: Path) -> None:
        theirs, ours = os.pipe()
        plain = {n: v for n, v in os.environ.items() if not n.startswith("HOLDFAST_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            env={**plain, "HOLDFAST_STORE": str(store), "TELL": str(ours)},
            pass_fds=(ours,), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(ours)
        self._told: IO[str] = os.fdopen(theirs)

    def wait_told(self, word: str) -> None:
        line = self._told.readline().strip()
        assert line == word, (line, self.process.communicate(timeout=WITHIN_S))

    def release(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=WITHIN_S)
        return self.process.returncode, out, err

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._told.close()
        with self.process:  # Closes its pipes and waits for it.
            self.process.kill()  # Nothing happens to one that has ended.


Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts children on the test's store; none outlives its test."""
    with ExitStack() as children:
        yield lambda code, *words: children.enter_context(Child(code, *words, store=tmp_path))


def holdfast(*words: str, store: Path) -> str:
    """A process of its own."""
    plain = {n: v for n, v in os.environ.items() if not n.startswith("HOLDFAST_")}
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *words],
        env={**plain, "HOLDFAST_STORE": str(store)},
        capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def here(*words: str, store: Path) -> str:
    """The same in this process, where the process does not matter: quicker."""
    out = io.StringIO()
    with redirect_stdout(out):
        assert main([*words, "--store", str(store)]) == 0
    return out.getvalue()


def turns(store: Path) -> list[Turn]:
    """As `turns list` reads them; in this process, which is quicker."""
    return [turn for turn, _ in open_reading(store).turns(LANES)]


def transcript(store: Path) -> list[tuple[str, str]]:
    """(role, text) of every entry in the only transcript, which must be sound."""
    (path,) = store.glob("agents/main/sessions/*.jsonl")
    data = path.read_bytes()
    assert verify(data).problems == ()
    messages = [json.loads(line)["message"] for line in data.splitlines()[1:]]
    return [(m["role"], m["content"][0]["text"].split("\n")[0]) for m in messages]


def test_a_dead_senders_message_is_answered_by_the_next_one(
    tmp_path: Path, start: Start
) -> None:
    died = start(AT_FIRST_TEXT.format(what="die"), "send", "main", "orphan")
    assert died.end()[0] == -signal.SIGKILL
    # The log of what the dead one wrote is still there; reading leaves it as it is.
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert before["control.db-wal"]
    (orphan,) = turns(tmp_path)
    assert (orphan.state, orphan.outcome) == ("running", None)
    assert "(dead)" in here("turns", "show", orphan.turn_id, store=tmp_path)
    here("sessions", "verify", store=tmp_path)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}

    told = json.loads(holdfast("send", "main", "mine", "--json", store=tmp_path))
    assert (told["outcome"], told["text"]) == ("replied", "You said: mine")
    assert [(t.text, t.outcome, t.attempts) for t in turns(tmp_path)] == [
        ("orphan", "replied", 2),
        ("mine", "replied", 1),
    ]
    assert transcript(tmp_path) == [
        ("user", "orphan"),
        ("assistant", "You said: orphan"),
        ("user", "mine"),
        ("assistant", "You said: mine"),
    ]


def test_two_senders_at_once_are_both_answered_one_after_the_other(tmp_path: Path) -> None:
    def send(text: str) -> dict[str, Any]:
        return dict(json.loads(holdfast("send", "main", text, "--json", store=tmp_path)))

    with ThreadPoolExecutor(2) as both:
        told = list(both.map(send, ["one two three", "four five six"]))
    assert [each["outcome"] for each in told] == ["replied", "replied"]
    order = [turn.text for turn in turns(tmp_path)]
    assert transcript(tmp_path) == [
        line for text in order for line in (("user", text), ("assistant", f"You said: {text}"))
    ]


def test_reading_goes_on_while_a_turn_runs_and_an_interrupted_one_goes_back(
    tmp_path: Path, start: Start
) -> None:
    sender = start(AT_FIRST_TEXT.format(what="stop"), "send", "main", "slow")
    sender.wait_told("speaking")
    (running,) = turns(tmp_path)
    assert running.state == "running"
    shown = json.loads(here("sessions", "show", "main", "--json", store=tmp_path))
    assert (shown["running"], shown["entries"]) == (running.turn_id, 1)
    told = json.loads(here("turns", "show", running.turn_id, "--json", store=tmp_path))
    assert str(sender.process.pid) in told["owner"]

    sender.process.send_signal(signal.SIGINT)
    sender.release()
    code, out, err = sender.end()
    assert (code, out) == (130, "")
    assert "stays queued" in err
    assert running.turn_id in err
    assert "Traceback" not in err
    (back,) = turns(tmp_path)
    assert (back.state, back.attempts, back.home) == ("accepted", 0, None)
    here("send", "main", "next", store=tmp_path)
    assert [turn.outcome for turn in turns(tmp_path)] == ["replied", "replied"]
    transcript(tmp_path)


@pytest.mark.parametrize(("fate", "reply", "attempts"), [
    ("lives", "reply to: hello", 1),
    ("dies", "You said: hello", 2),
])  # fmt: skip
def test_a_permanent_runner_answers_and_if_it_dies_the_sender_does(
    fate: str, reply: str, attempts: int, tmp_path: Path, start: Start
) -> None:
    runner = start(RUNNER, str(tmp_path), fate)
    runner.wait_told("serving")
    told = json.loads(holdfast("send", "main", "hello", "--json", store=tmp_path))
    assert told["outcome"] == "replied"
    assert (told["text"].split("\n")[0], told["attempts"]) == (reply, attempts)
    if fate == "lives":
        runner.release()
    assert runner.end()[0] == (0 if fate == "lives" else -signal.SIGKILL)


def test_handed_in_beside_a_runner_it_says_who_answers(tmp_path: Path, start: Start) -> None:
    runner = start(RUNNER, str(tmp_path), "lives")
    runner.wait_told("serving")
    sender = start(SEND, "send", "main", "hello", "--no-wait")
    code, out, err = sender.end()
    assert code == 0, err
    assert f"process {runner.process.pid} " in err
    # The next message is answered after it.
    here("send", "main", "and now?", store=tmp_path)
    assert [turn.outcome for turn in turns(tmp_path)] == ["replied", "replied"]
    assert turns(tmp_path)[0].turn_id == out.strip()
    runner.release()
    assert runner.end()[0] == 0


def test_a_model_asked_for_by_one_message_answers_only_that_one(tmp_path: Path) -> None:
    """pydantic-ai's own model for tests says what it is."""
    told = json.loads(here("send", "main", "a", "--model", "test", "--json", store=tmp_path))
    assert told["outcome"] == "replied"
    assert "You said" not in told["text"]
    told = json.loads(here("send", "main", "b", "--json", store=tmp_path))
    assert told["text"].startswith("You said: b")

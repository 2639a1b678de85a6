"""
`holdfast chat`: in a real terminal and in a pipe, with and without a server.

Every test of a conversation runs through both doors: a state directory, whose chat answers
itself, and a server.  A scripted model answers ``reply to: …`` and stops where it is told to.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast._assemble_reading import open_reading
from holdfast._core.settings import LANES
from holdfast._core.verify import verify
from holdfast.cli import main
from holdfast.testing import ModelServer, Step
from holdfast.types import Turn
from support.serving import Served
from support.terminal import CTRL_A, CTRL_C, CTRL_D, Terminal

WITHIN_S = 60.0
MODEL = "openai-chat:any"


@dataclass
class Place:
    """A state directory, how to chat there, and how others send to it."""

    store: Path
    model: ModelServer
    served: Served | None
    stack: ExitStack
    env: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, ...]:
        if self.served is not None:
            return ("chat", "--url", self.served.url)
        return ("chat", "--model", MODEL)

    def chat(self, *more: str, **options: Any) -> Terminal:
        env = {**self.env, **options.pop("env", {})}
        terminal = Terminal(*self.words, *more, store=self.store, env=env, **options)
        return self.stack.enter_context(terminal)

    def piped(self, text: str, *more: str) -> subprocess.CompletedProcess[str]:
        return command(*self.words, *more, store=self.store, env=self.env, input=text)

    def send(self, text: str, *, lane: str, source: str) -> None:
        """As another program does it: through the API, or as `send` hands in a message."""
        if self.served is None:
            words = ["send", "main", text, "--lane", lane, "--source", source, "--no-wait"]
            done = command(*words, "--model", MODEL, store=self.store, env=self.env)
            assert done.returncode == 0, done.stderr
            return
        with self.served.client() as http:
            body = {"text": text, "lane": lane, "source": source}
            assert http.post("/v1/sessions/main/messages", json=body).status_code == 202

    def hold(self, when: str, *tokens: str) -> tuple[Callable[[], None], Callable[[], None]]:
        """The model stops within this answer.  Returns: wait until it has; let it go on."""
        step = Step.reply(*tokens).keyed(when).held(after=1)
        self.model.add(step)
        gate, reached = step.gate, step.reached
        assert gate is not None
        assert reached is not None

        def wait() -> None:
            assert reached.wait(WITHIN_S)

        return wait, gate.set

    @property
    def token(self) -> str:
        return (self.store / "gateway.token").read_text().strip()


def command(
    *words: str, store: Path, env: Mapping[str, str] | None = None, **given: Any
) -> subprocess.CompletedProcess[str]:
    plain = {n: v for n, v in os.environ.items() if not n.startswith("HOLDFAST_")}
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *words],
        env={**plain, "HOLDFAST_STORE": str(store), **(env or {})},
        capture_output=True, text=True, timeout=WITHIN_S, check=False, **given,
    )  # fmt: skip


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def make_place(kind: str, where: Path, model: ModelServer, stack: ExitStack) -> Place:
    env = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "sk-none", "NO_PROXY": "*"}
    store = where / "state"
    served = None
    if kind == "server":
        served = Served(store, "--model", MODEL, env={**env, "HOLDFAST_GATEWAY__DRAIN_MS": "0"})
        stack.enter_context(served)
    return Place(store, model, served, stack, env)


@pytest.fixture(params=["store", "server"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, model: ModelServer
) -> Iterator[Place]:
    with ExitStack() as stack:
        yield make_place(request.param, tmp_path, model, stack)


@pytest.fixture
def server(tmp_path: Path, model: ModelServer) -> Iterator[Place]:
    with ExitStack() as stack:
        yield make_place("server", tmp_path, model, stack)


@pytest.fixture
def alone(tmp_path: Path, model: ModelServer) -> Iterator[Place]:
    with ExitStack() as stack:
        yield make_place("store", tmp_path, model, stack)


def transcript(store: Path) -> list[str]:
    """Every message's text in the only transcript, which must be sound."""
    (path,) = store.glob("agents/main/sessions/*.jsonl")
    data = path.read_bytes()
    assert verify(data).problems == ()
    entries = [json.loads(line) for line in data.splitlines()[1:]]
    return [e["message"]["content"][0]["text"] for e in entries if e["type"] == "message"]


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def turns(store: Path) -> list[Turn]:
    return [turn for turn, _ in open_reading(store).turns(LANES)]


def in_order(terminal: Terminal, *texts: str) -> bool:
    at = [terminal.shown.find(text) for text in texts]
    return -1 not in at and at == sorted(at)


# ---------------------------------------------------------------------- one conversation


def test_a_conversation_and_what_is_left_of_it(place: Place) -> None:
    chat = place.chat()
    chat.until_prompt()
    chat.enter("hello")
    chat.until_shown("you> hello", "reply to: hello")
    chat.until_prompt()
    chat.enter("first line\\")
    chat.until_prompt("...>")
    chat.enter("second line")
    chat.until_shown("reply to: first line second line")
    chat.until_prompt()
    chat.enter("//usr is a path")
    chat.until_shown("reply to: /usr is a path")
    chat.until_prompt()
    chat.enter("/quit")
    assert chat.read_to_end() == 0
    assert chat.is_as_before
    assert chat.shown.count("reply to: hello") == 1
    assert [t.source for t in turns(place.store)] == ["cli"] * 3
    assert transcript(place.store)[2] == "first line\nsecond line"

    home = place.store if place.served is None else place.store.parent / "xdg" / "holdfast"
    history = home / "chat.history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    again = place.chat()
    again.until_prompt()
    assert in_order(
        again, "| [earlier] hello", "| reply to: hello", "| [earlier] /usr is a path"
    )
    again.type("\x1b[A\x1b[A")  # Up, past /quit.
    again.until_prompt("you> //usr is a path")


def test_what_the_commands_say(place: Place) -> None:
    chat = place.chat()
    chat.until_prompt()
    chat.enter("hello")
    chat.until_shown("reply to: hello")
    chat.until_prompt()
    chat.enter("/help")
    chat.until_shown("/history [N]")
    chat.enter("/who")
    chat.until_shown("waiting  0", "this chat" if place.served is None else place.served.url)
    chat.enter("/frobnicate now")
    chat.until_shown("no such command: /frobnicate", "/cancel")
    chat.enter("/history 1")
    chat.until_shown("| [earlier] hello")
    chat.enter("/history many")
    chat.until_shown("from 1 to 500")
    chat.enter("/cancel")
    chat.until_shown("nothing that was sent here is still open")
    chat.until_prompt()
    chat.type(CTRL_D)
    assert chat.read_to_end() == 0
    assert chat.is_as_before


def test_without_colours_and_with_nothing_that_steers(place: Place) -> None:
    place.model.add(Step.reply("clear \x1b[2J", "\x1b]0;title\x07", " and \x1b[31mred"))
    chat = place.chat(env={"NO_COLOR": "1"})
    chat.until_prompt()
    chat.enter("hello")
    chat.until_shown("\ufffd[2J\ufffd]0;title\ufffd and \ufffd[31mred")
    chat.until_prompt()
    chat.enter("/history")
    chat.until_shown("| clear \ufffd[2J")
    assert "\x1b[2J" not in chat.raw
    assert "\x1b]" not in chat.raw
    assert "m" not in {part[-1] for part in chat.raw.split("\x1b[")[1:] if part[:1].isdigit()}


# ------------------------------------------------------------------- others in the session


@pytest.mark.parametrize("typed", ["half typed", "x" * 250], ids=["one row", "three rows"])
def test_what_others_say_appears_and_the_line_being_typed_survives(
    typed: str, place: Place
) -> None:
    chat = place.chat()
    chat.until_prompt()
    chat.enter("hello")
    chat.until_shown("reply to: hello")
    chat.until_prompt()
    chat.type(typed)
    chat.until(lambda: chat.shown.replace("\n", "").endswith(f"you> {typed}"), "what was typed")
    chat.type(f"{CTRL_A}>> ")  # The cursor stands near the beginning now.
    whole = f">> {typed}"
    line = f"you> {whole}"
    chat.until(lambda: chat.shown.replace("\n", "").endswith(line), "the line")
    place.send("nightly report", lane="cron", source="timer")
    chat.until_shown("| [cron · timer] nightly report", "| reply to: nightly report")
    chat.until(lambda: chat.shown.replace("\n", "").endswith(f"report{line}"), "the line below")
    assert chat.shown.count("you> >>") == 1
    chat.type("!")
    chat.enter("")
    chat.until(lambda: f"reply to: >> !{typed}" in chat.shown.replace("\n", ""), "the reply")
    chat.until_prompt()
    assert f">> !{typed}" in transcript(place.store)


def test_two_chats_in_one_session_see_one_order(place: Place) -> None:
    first, second = place.chat(), place.chat()
    for chat in (first, second):
        chat.until_prompt()
    said: list[str] = []
    for number in range(4):
        for chat, name in ((first, "a"), (second, "b")):
            chat.enter(f"{name}{number}.")
            said.append(f"{name}{number}.")
        for chat in (first, second):
            chat.until_shown(*(f"reply to: {text}" for text in said))
            chat.until_prompt()
    order = [text for text in transcript(place.store) if text.startswith("reply to")]
    assert sorted(order) == sorted(f"reply to: {text}" for text in said)
    for chat in (first, second):
        shown = [line.removeprefix("| ") for line in chat.display.lines]
        assert [line for line in shown if line.startswith("reply to")] == order
    assert first.shown.count("a0.") == 2  # Typed and answered, and not once more.
    assert "| [user · cli] b0." in first.shown
    assert "| [user · cli] a0." in second.shown


def test_a_message_that_waits_says_for_what(place: Place) -> None:
    wait, go_on = place.hold("long", "slow", "ly")
    first, second = place.chat(), place.chat()
    for chat in (first, second):
        chat.until_prompt()
    first.enter("a long one")
    wait()
    first.until_shown("slow")
    second.enter("short")
    second.until_prompt("1 ahead, waiting for: turn")
    go_on()
    second.until_shown("reply to: short")
    second.until_prompt()
    assert in_order(second, "| slowly", "reply to: short")
    assert "ahead" not in second.shown  # It was written over.
    first.until_shown("slowly", "| reply to: short")


# ----------------------------------------------------------------------------- interrupted


def test_ctrl_c_in_a_reply_leaves_it_and_it_comes_later(place: Place) -> None:
    wait, go_on = place.hold("long", "some", " thing")
    chat = place.chat()
    chat.until_prompt()
    chat.enter("a long one")
    wait()
    chat.until_shown("\nsome")
    chat.type("typed ahead")  # Unseen: it must not mix with the reply.
    chat.type(CTRL_C)
    chat.until_shown("no longer waiting")
    chat.until_prompt()
    go_on()
    chat.until_shown("| [you, earlier] a long one", "| some thing")
    chat.until_prompt()
    chat.enter("next")
    chat.until_shown("reply to: next")


def test_what_is_typed_while_a_reply_comes_is_there_afterwards(place: Place) -> None:
    wait, go_on = place.hold("long", "some", " thing")
    chat = place.chat()
    chat.until_prompt()
    chat.enter("a long one")
    wait()
    chat.until_shown("\nsome")
    chat.type("typed ahead")
    go_on()
    chat.until_prompt("you> typed ahead")
    assert "some thing\nyou> typed ahead" in chat.shown


def test_cancel_ends_what_was_left(place: Place) -> None:
    wait, go_on = place.hold("long", "some", " thing")
    chat = place.chat()
    chat.until_prompt()
    chat.enter("a long one")
    wait()
    chat.until_shown("\nsome")
    chat.type(CTRL_C)
    chat.until_shown("no longer waiting")
    chat.until_prompt()
    chat.enter("/cancel")
    chat.until_shown("| [you, earlier] a long one", "| ended: cancelled")
    chat.until_prompt()
    go_on()
    # The entry, which is what was shown, comes before the row.
    soon(lambda: [turn.outcome for turn in turns(place.store)] == ["cancelled"])
    chat.enter("/cancel")
    chat.until_shown("nothing that was sent here is still open")


def test_ctrl_c_drops_a_line_and_leaves_at_an_empty_one(place: Place) -> None:
    chat = place.chat()
    chat.until_prompt()
    chat.type("not this")
    chat.until_prompt("you> not this")
    chat.type(CTRL_C)
    chat.until_prompt()
    chat.enter("a\\")
    chat.until_prompt("...>")
    chat.type(CTRL_C)
    chat.until_prompt()
    chat.type(CTRL_C)
    assert chat.read_to_end() == 130
    assert chat.is_as_before
    assert "Traceback" not in chat.shown


def test_a_chat_that_is_told_to_end_hands_back_what_it_runs(alone: Place) -> None:
    wait, go_on = alone.hold("long", "some", " thing")
    chat = alone.chat()
    chat.until_prompt()
    chat.enter("a long one")
    wait()
    chat.until_shown("\nsome")
    chat.process.send_signal(signal.SIGTERM)
    assert chat.read_to_end() == 128 + signal.SIGTERM
    assert chat.is_as_before
    go_on()
    (turn,) = turns(alone.store)
    assert (turn.state, turn.home, turn.attempts) == ("accepted", None, 0)
    again = alone.chat()
    again.until_shown("| reply to: a long one")  # The next one answers it.


# ------------------------------------------------------------------------ who comes and goes


def test_a_chat_steps_back_for_a_server_and_takes_over_when_it_has_gone(alone: Place) -> None:
    chat = alone.stack.enter_context(Terminal("chat", store=alone.store, env=alone.env))
    chat.until_prompt()
    chat.enter("one")
    chat.until_shown("You said: one", "built-in demo model")
    chat.until_prompt()
    served = Served(alone.store, "--model", MODEL, env=alone.env)
    with served:
        while "answers  process" not in chat.shown:
            chat.enter("/who")
            before = chat.shown.count("waiting  ")
            chat.until(lambda n=before: chat.shown.count("waiting  ") > n, "/who")
            chat.until_prompt()
        chat.enter("two")
        chat.until_shown("\nreply to: two")
        chat.until_prompt()
        assert served.stop()[0] == 0
    chat.enter("three")
    chat.until_shown("You said: three")
    replies = [text.split("\n")[0] for text in transcript(alone.store)[1::2]]
    assert replies == ["You said: one", "reply to: two", "You said: three"]


def test_a_server_that_restarts_in_mid_reply_loses_and_doubles_nothing(server: Place) -> None:
    assert server.served is not None
    wait, go_on = server.hold("long", "some", " thing")
    chat = server.chat()
    chat.until_prompt()
    chat.enter("before")
    chat.until_shown("reply to: before")
    chat.until_prompt()
    chat.enter("a long one")
    wait()
    chat.until_shown("\nsome")
    assert server.served.stop()[0] == 1  # Put back, as its drain has no time.
    go_on()
    chat.until_shown("trying again")
    server.served.start()
    chat.until_shown("the text above is void", "reply to: a long one")
    chat.until_prompt()
    assert server.served.stop()[0] == 0
    chat.enter("while it is away")
    chat.until_shown("nobody listens there")
    server.served.start()
    chat.until_shown("reply to: while it is away")
    chat.until_prompt()
    asked = ["before", "a long one", "while it is away"]
    assert transcript(server.store) == [
        line for text in asked for line in (text, f"reply to: {text}")
    ]
    for text in asked:
        assert chat.shown.count(f"reply to: {text}") == 1
    assert "| " not in chat.shown  # Nothing of ours came back as another's.


# ------------------------------------------------------------------------------ in a pipe


def test_a_pipe_is_answered_line_by_line(place: Place) -> None:
    done = place.piped("one\n\ntwo \\\nlines\n//three")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "reply to: one\nreply to: two lines\nreply to: /three\n"
    assert "\x1b" not in done.stdout + done.stderr


def test_a_pipe_as_json(place: Place) -> None:
    done = place.piped("one\ntwo\n", "--json", "--lane", "cron", "--source", "job")
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {event["event"] for event in told} <= {
        "accepted", "position", "text", "outcome", "entry",
    }  # fmt: skip
    outcomes = [event for event in told if event["event"] == "outcome"]
    assert [o["text"] for o in outcomes] == ["reply to: one", "reply to: two"]
    assert [o["outcome"] for o in outcomes] == ["replied"] * 2
    entries = [event["entry"] for event in told if event["event"] == "entry"]
    assert [e["message"]["content"][0]["text"] for e in entries] == transcript(place.store)
    for outcome in outcomes:
        turn = outcome["turn_id"]
        text = "".join(e["text"] for e in told if e["event"] == "text" and e["turn_id"] == turn)
        assert text == outcome["text"]
        (accepted,) = (e for e in told if e["event"] == "accepted" and e["turn_id"] == turn)
        assert accepted["session_id"] == outcome["session_id"]
    assert [(t.lane, t.source) for t in turns(place.store)] == [("cron", "job")] * 2


def test_a_pipe_with_an_unanswered_message_says_so(place: Place) -> None:
    place.model.add(Step.fail("bad_request").keyed("bad"))
    done = place.piped("good\nbad\nbetter\n")
    assert done.returncode == 1
    assert done.stdout == "reply to: good\nreply to: better\n"
    assert "ended: failed" in done.stderr
    done = place.piped("/nope\nstill\n")
    assert (done.returncode, done.stdout) == (2, "reply to: still\n")
    assert "no such command: /nope" in done.stderr


def test_a_pipe_that_is_told_to_end_hands_its_turn_back(alone: Place) -> None:
    """SIGTERM in mid-reply: the turn stands in the queue again, its attempt given back."""
    wait, _ = alone.hold("long", "some", " thing")
    plain = {n: v for n, v in os.environ.items() if not n.startswith("HOLDFAST_")}
    with subprocess.Popen(
        [sys.executable, "-m", "holdfast", *alone.words],
        env={**plain, "HOLDFAST_STORE": str(alone.store), **alone.env},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as chat:  # fmt: skip
        assert chat.stdin is not None
        chat.stdin.write("a long one\n")
        chat.stdin.flush()
        wait()
        chat.send_signal(signal.SIGTERM)
        chat.communicate(timeout=WITHIN_S)
    assert chat.returncode == 128 + signal.SIGTERM
    [turn] = turns(alone.store)
    assert (turn.state, turn.attempts, turn.reason) == ("accepted", 0, "drained")


def test_a_busy_session_and_the_policy_reject(place: Place) -> None:
    wait, go_on = place.hold("long", "some", " thing")
    chat = place.chat()
    chat.until_prompt()
    chat.enter("a long one")
    wait()
    done = place.piped("not now\n", "--policy", "reject", "--json")
    go_on()
    assert done.returncode == 4
    error = json.loads(done.stdout.splitlines()[0])["error"]
    assert error["code"] == "rejected"
    chat.until_shown("some thing")


# ------------------------------------------------------------------------- what goes wrong


def test_a_bad_token_is_refused_and_never_shown(server: Place) -> None:
    assert server.served is not None
    for env, words in (
        ({"HOLDFAST_TOKEN": "a-wrong-secret"}, ()),
        ({}, ("--token", "a-wrong-secret")),
    ):
        done = command(
            *server.words, *words, "--json", store=server.store, env=env, input="x\n"
        )
        assert done.returncode == 2
        assert json.loads(done.stdout)["error"]["code"] == "unauthorized"
        assert "does not take this token" in done.stderr
        assert "a-wrong-secret" not in done.stdout + done.stderr
    elsewhere = server.store.parent / "elsewhere"
    done = command(*server.words, store=elsewhere, input="x\n")
    assert "wants a token" in done.stderr
    # What is typed by mistake is sent, as it was asked to be, but not kept.
    chat = server.chat()
    chat.until_prompt()
    chat.enter(f"my token is {server.token}")
    chat.until_shown("reply to: my token")
    chat.until_prompt()
    chat.type(CTRL_D)
    assert chat.read_to_end() == 0
    history = server.store.parent / "xdg" / "holdfast" / "chat.history"
    assert not history.exists()


def test_servers_that_are_not_there(tmp_path: Path, model: ModelServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    store = tmp_path / "state"
    for url, said in (
        (f"http://127.0.0.1:{free}", "nobody listens there: start one with: holdfast serve"),
        ("http://no-such-host.invalid", "no host 'no-such-host.invalid'"),
        (model.url, "is not Holdfast"),
        (model.url.replace("http:", "https:"), "no secure connection"),
    ):
        done = command("chat", "--url", url, store=store, env={"NO_PROXY": "*"}, input="x\n")
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert said in done.stderr
        assert done.stderr.count("\n") <= 2
    for words, said in (
        (("--url", "ftp://example.org"), "not the url of a server"),
        (("--url", "http://me:pass@example.org"), "a user or a password"),
        (("--url", "http://127.0.0.1:1", "--model", "m"), "--model"),
        (("--token", "t"), "--token is for --url"),
        (("--lane", "nope"), "unknown lane"),
    ):
        done = command("chat", *words, store=store, input="x\n")
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr
        assert "pass@" not in done.stderr
    assert not store.exists()


def test_the_url_may_stand_in_the_environment_and_a_named_store_wins(
    server: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.served is not None
    env = {"HOLDFAST_URL": server.served.url, "HOLDFAST_TOKEN": server.token}
    done = command("chat", store=server.store, env=env, input="hi\n")
    assert (done.returncode, done.stdout) == (0, "reply to: hi\n")
    other = server.store.parent / "other"
    done = command("chat", "--store", str(other), store=server.store, env=env, input="hi\n")
    assert done.stdout.startswith("You said: hi")
    monkeypatch.delenv("HOLDFAST_URL", raising=False)
    assert main(["chat", "--help"]) == 0

"""The commands, as a user runs them: real processes, real directories, exit codes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli import main

WITHIN_S = 60


def run(*words: str, store: Path, **given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *words],
        env=environment(store, given.pop("env", {})),
        capture_output=True, text=True, timeout=WITHIN_S, check=False, **given,
    )  # fmt: skip


def environment(store: Path, more: dict[str, str]) -> dict[str, str]:
    plain = {n: v for n, v in os.environ.items() if not n.startswith("HOLDFAST_")}
    return {**plain, "HOLDFAST_STORE": str(store), **more}


@pytest.fixture(autouse=True)
def _own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOLDFAST_STORE", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def talked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one answered turn and one that waits; nobody is there."""
    store = tmp_path_factory.mktemp("talked") / "state"
    sent = run("send", "main", "hello there", store=store)
    assert sent.returncode == 0, sent.stderr
    assert sent.stdout.startswith("You said: hello there\n")
    assert sent.stderr.count("\n") == 1
    assert "demo" in sent.stderr
    assert "--model" in sent.stderr
    queued = run("send", "agent:main:other", "later", "--no-wait", "--json", store=store)
    assert queued.returncode == 0, queued.stderr
    told = json.loads(queued.stdout)
    assert (told["position"], told["waiting_for"]) == (0, "no_runner")
    assert set(told) == {"turn_id", "session_id", "position", "waiting_for", "reason"}
    assert "no process answers" in queued.stderr
    return store


def fingerprints(store: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(store)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
            path.stat().st_mtime_ns,
        )
        for path in [store, *store.rglob("*")]
    }


READING = (
    ["sessions", "list"],
    ["sessions", "show", "main"],
    ["sessions", "tail", "main"],
    ["sessions", "verify"],
    ["turns", "list"],
)


def test_what_was_said_can_be_read_and_reading_changes_nothing(
    talked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fingerprints(talked)
    store = ["--store", str(talked)]
    told: list[Any] = []
    for words in READING:
        assert main([*words, *store]) == 0
        assert capsys.readouterr().out
        assert main([*words, *store, "--json"]) == 0
        told.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    listed, shown, tailed, verified, turns = told
    main_session = next(s for s in listed[0]["sessions"] if s["keys"] == ["agent:main:main"])
    assert (main_session["turns"], main_session["waiting"]) == (1, 0)
    assert shown[0]["entries"] == 2
    assert os.path.exists(shown[0]["transcript"])
    assert [entry["message"]["role"] for entry in tailed] == ["user", "assistant"]
    assert verified[0]["ok"]
    assert sorted(file["entries"] for file in verified[0]["files"]) == [0, 2]
    first, second = turns[0]["turns"]
    assert (first["state"], first["outcome"], first["attempts"]) == ("done", "replied", 1)
    assert (second["state"], second["waiting_for"]) == ("accepted", "no_runner")

    assert main(["turns", "show", first["turn_id"][:18], *store, "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert one["reply"].startswith("You said: hello there")
    assert one["live_log"]
    assert main(["turns", "show", first["turn_id"], *store]) == 0
    assert "replied" in capsys.readouterr().out
    assert fingerprints(talked) == before


def test_a_store_that_is_not_there_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (*READING, ["turns", "show", "01234567"], ["turns", "cancel", "01234567"]):
        assert main(words) == 2
        told = capsys.readouterr()
        assert "no such store" in told.err
        assert told.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["send", "main"], 2, "bad_request"),
        (["send", "main", "x", "--nonsense"], 2, "bad_request"),
        (["nonsense"], 2, "bad_request"),
        (["sessions"], 2, "bad_request"),
        (["send", "bad key", "x"], 2, "bad_key"),
        (["send", "main", "x", "--lane", "fast"], 2, "unknown_lane"),
        (["send", "main", "x", "--policy", "yolo"], 2, "unknown_policy"),
        (["send", "main", "  "], 2, "bad_request"),
        (["send", "main", "x" * 1_048_577], 2, "too_large"),
        (["send", "main", "x", "--source", "a\nb"], 2, "bad_request"),
        (["send", "agent:nobody:main", "x"], 2, "unknown_agent"),
        (["send", "main", "x", "--store", "memory:"], 2, "bad_setting"),
        (["chat", "main", "--store", "memory:shared"], 2, "bad_setting"),
        (["sessions", "list", "--store", "memory:"], 2, "bad_setting"),
        (["sessions", "show", "agent:main:nowhere"], 2, "not_found"),
        (["sessions", "verify", "./gone.jsonl"], 2, "not_found"),
        (["turns", "list", "--state", "lost"], 2, "bad_request"),
        (["turns", "show", "0123456789"], 2, "not_found"),
    ],
)
def test_an_error_is_one_line_and_an_object_and_a_code(
    words: list[str], code: int, error: str, talked: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if words[0] != "send":
        monkeypatch.setenv("HOLDFAST_STORE", str(talked))
    assert main([*words, "--json"]) == code
    told = capsys.readouterr()
    assert told.err.startswith("holdfast: ")
    assert told.err.count("\n") == 1
    found = json.loads(told.out)["error"]
    assert found["code"] == error
    assert found["message"]


def test_an_unusable_store_is_exit_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["send", "main", "x", "--store", str(tmp_path / "file")]) == 3
    assert "not a directory" in capsys.readouterr().err


def test_unknown_settings_are_refused_but_the_debug_switch_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    assert main(["send", "main", "x", "--no-wait"]) == 0
    monkeypatch.setenv("HOLDFAST_TURN__LEAZE_MS", "1")
    assert main(["send", "main", "x"]) == 2
    assert "turn.leaze_ms" in capsys.readouterr().err


def test_the_same_idempotency_key_is_the_same_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    once = ["send", "main", "pay", "--idempotency-key", "k", "--json"]
    assert main(once) == 0
    first = json.loads(capsys.readouterr().out)
    assert set(first) == {
        "turn_id", "session_id", "outcome", "text", "attempts", "waited_ms",
    }  # fmt: skip
    assert main(once) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert main(["send", "main", "pay twice", "--idempotency-key", "k"]) == 2
    assert first["turn_id"] in capsys.readouterr().err


def test_a_waiting_turn_is_cancelled_once_and_an_answered_one_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["send", "main", "never mind", "--no-wait"]) == 0
    turn_id = capsys.readouterr().out.strip()
    assert main(["turns", "cancel", turn_id[:18], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"turn_id": turn_id, "state": "done", "outcome": "cancelled"}
    assert main(["turns", "cancel", turn_id]) == 0
    capsys.readouterr()
    assert main(["send", "main", "hello", "--json"]) == 0
    answered = json.loads(capsys.readouterr().out)["turn_id"]
    assert main(["turns", "cancel", answered]) == 1
    assert "replied" in capsys.readouterr().err


def test_a_turn_that_fails_is_exit_code_1_with_its_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["send", "main", "x", "--model", "nobody:nothing", "--json"]) == 1
    heard = capsys.readouterr()
    told = json.loads(heard.out)
    assert (told["outcome"], told["reason"], told["text"]) == ("failed", "bad_request", None)
    assert "nobody:nothing" in heard.err
    assert "Traceback" not in heard.err


def test_a_message_may_come_on_stdin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = run("send", "main", "-", store=tmp_path, input="from a pipe\n")
    assert sent.stdout.startswith("You said: from a pipe\n")
    monkeypatch.setenv("HOLDFAST_GATEWAY__MAX_MESSAGE_BYTES", "5")
    for raw, complaint in ((b"too long", "over the limit of 5"), (b"\xff", "not UTF-8")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
        assert main(["send", "main", "-"]) == 2
        assert complaint in capsys.readouterr().err


def test_a_reader_that_hangs_up_is_no_error(talked: Path) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    for words in (["turns", "list", "--json"], ["--help"]):
        hung_up = subprocess.run(
            [sys.executable, "-m", "holdfast", *words],
            env=environment(talked, {}), stdout=ours, stderr=subprocess.PIPE, text=True,
            timeout=WITHIN_S, check=False,
        )  # fmt: skip
        assert (hung_up.returncode, hung_up.stderr) == (0, "")
    os.close(ours)


def test_following_shows_what_comes_until_interrupted(tmp_path: Path) -> None:
    assert run("send", "main", "first", store=tmp_path).returncode == 0
    with subprocess.Popen(
        [sys.executable, "-m", "holdfast", "sessions", "tail", "main", "-f", "--json"],
        env=environment(tmp_path, {}), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as follower:  # fmt: skip
        try:
            assert follower.stdout is not None
            lines = iter(follower.stdout.readline, "")
            roles = [json.loads(next(lines))["message"]["role"] for _ in range(2)]
            sent = run("send", "main", "second", store=tmp_path)
            assert sent.returncode == 0, sent.stderr
            texts = [json.loads(next(lines))["message"]["content"] for _ in range(2)]
            follower.send_signal(signal.SIGINT)
            _, said = follower.communicate(timeout=WITHIN_S)
        finally:
            follower.kill()
    assert roles == ["user", "assistant"]
    assert [content[0]["text"] for content in texts] == ["second", "You said: second"]
    assert follower.returncode == 130
    assert said == "holdfast: interrupted\n"


def test_a_broken_transcript_is_told_with_line_and_code(
    talked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = talked.glob("agents/main/sessions/*.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(source.read_bytes() + b'{"type": "mess')
    assert main(["sessions", "verify", str(broken), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["files"][0]["entries"] == 2
    assert told["files"][0]["problems"][0] == {
        "line": 4, "code": "torn_tail", "detail": "14 bytes after the last newline",
    }  # fmt: skip
    assert main(["sessions", "verify", str(broken)]) == 1
    assert "line 4: torn_tail" in capsys.readouterr().out


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["send", "-h"], ["turns", "--help"], ["lab", "--help"]):
        assert main(words) == 0
        assert "holdfast" in capsys.readouterr().out
    assert main(["version", "--json"]) == 0
    assert "version" in json.loads(capsys.readouterr().out)
    assert main(["--version"]) == 0


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from holdfast.cli import main; main(['--help']);"
        "heavy = {'pydantic', 'pydantic_ai', 'rich', 'starlette', 'asyncio', 'sqlite3'};"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr

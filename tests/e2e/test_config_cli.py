"""`holdfast config`, and commands that go by a file: as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

import holdfast
from holdfast._core.settings_table import KEYS
from holdfast.cli import main
from holdfast.testing.scripted import ScriptedModel

WITHIN_S = 60
GOOD = """
[turn]
queue_max = 400
lease_ms = "10s"

[gateway]
token = "hush"
live_log_minutes = "1h"
allowed_hosts = ["a.example"]

[lanes.bulk]
concurrency = 3

[agents.main]
object = "mine:agent"

[agents.ops]
"""
BAD = """
quque_max = 1
[turn]
queue_max = "many"
lease_ms = "60 parsecs"
[gateway]
token = "hush hush"
[agents.main]
object = "mine:agent"
model = "m"
"""
MINE = """
print("mine was imported")

class agent:
    async def respond(self, prompt, hook):
        from holdfast.types import Final
        text = f"mine: {prompt.text}"
        yield Final({"role": "assistant", "content": text}, text)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("HOLDFAST_", "OPENCLAW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOLDFAST_STORE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str, **given: Any) -> subprocess.CompletedProcess[str]:
    """In a process of its own: what is imported there stays there."""
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p]\n"
        "from holdfast.cli import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, **given}, capture_output=True, text=True, timeout=WITHIN_S,
        check=False,
    )  # fmt: skip


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert main(["config", "show", "--json", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    return {row["key"]: row for row in told["settings"]}


# --------------------------------------------------------------------------------- show


def test_show_has_every_setting_and_where_it_comes_from(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(capsys)
    assert set(KEYS) <= set(found)
    assert {row["source"] for row in found.values()} == {"default"}
    assert not any(row["changed"] for row in found.values())
    (here / "holdfast.toml").write_text(GOOD)
    monkeypatch.setenv("HOLDFAST_TURN__QUEUE_MAX", "500")
    monkeypatch.setenv("OPENCLAW_SESSION_WRITE_LOCK_MAX_HOLD_MS", "30000")
    found = rows(capsys)
    wanted = {
        "turn.queue_max": (500, True, "environment HOLDFAST_TURN__QUEUE_MAX"),
        "turn.lease_ms": (10_000, True, "holdfast.toml"),
        "turn.max_attempts": (3, False, "default"),
        "session.write_lock.max_hold_ms":
            (30_000, False, "environment OPENCLAW_SESSION_WRITE_LOCK_MAX_HOLD_MS"),
        "gateway.allowed_hosts": (["a.example"], True, "holdfast.toml"),
        "gateway.live_log_minutes": (60, True, "holdfast.toml"),
        "gateway.token": ("(set)", True, "holdfast.toml"),
        "lanes.bulk.concurrency": (3, True, "holdfast.toml"),
        "agents.main.object": ("mine:agent", True, "holdfast.toml"),
        "agents.ops": (None, False, "holdfast.toml"),
    }  # fmt: skip
    for key, (value, changed, source) in wanted.items():
        row = found[key]
        assert (row["value"], row["changed"], row["source"]) == (value, changed, source), key


def test_show_marks_what_is_changed_and_shows_no_secret(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "holdfast.toml").write_text(GOOD)
    assert main(["config", "show"]) == 0
    assert main(["config", "show", "--json"]) == 0
    assert main(["config", "check"]) == 0
    told = capsys.readouterr()
    assert "hush" not in told.out + told.err
    lines = told.out.splitlines()
    marked = {line.split()[1] for line in lines if line.startswith("* ")}
    assert {"turn.queue_max", "gateway.token"} <= marked
    assert "turn.max_attempts" not in marked
    assert next(line for line in lines if "gateway.token" in line).split()[2] == "(set)"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://ann:hush@example.org:8443/hush?t=hush#hush", "https://example.org:8443/…"),
        ("https://example.org?hush", "https://example.org/…"),
        ("https://example.org/", "https://example.org/"),
    ],
)
def test_of_a_channels_url_only_the_host_is_shown(
    here: Path, capsys: pytest.CaptureFixture[str], url: str, shown: str
) -> None:
    (here / "holdfast.toml").write_text(f'[channels.crm]\nurl = "{url}"\n')
    assert rows(capsys)["channels.crm.url"]["value"] == shown
    assert main(["config", "show"]) == 0
    (here / "bad.toml").write_text('[channels.crm]\nurl = "htps://example.org/hush"\n')
    assert main(["config", "check", "bad.toml"]) == 2
    assert main(["config", "show", "--config", "bad.toml"]) == 2
    told = capsys.readouterr()
    assert "channels.crm.url" in told.out + told.err
    assert "hush" not in told.out + told.err


def test_the_file_is_named_or_found(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, number in (("holdfast.toml", 1), ("named.toml", 2), ("flag.toml", 3)):
        (here / name).write_text(f"turn.queue_max = {number}")
    assert rows(capsys)["turn.queue_max"]["value"] == 1
    monkeypatch.setenv("HOLDFAST_CONFIG", "named.toml")
    assert rows(capsys)["turn.queue_max"]["source"] == "named.toml"
    assert rows(capsys, "--config", "flag.toml")["turn.queue_max"]["value"] == 3
    for words in (["show", "--config", "gone.toml"], ["check", "gone.toml"]):
        assert main(["config", *words]) == 2
        assert "gone.toml" in capsys.readouterr().err


# -------------------------------------------------------------------------------- check


def test_check_lists_all_problems(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.toml").write_text(BAD)
    assert main(["config", "check", "bad.toml"]) == 2
    told = capsys.readouterr().out
    lines = told.splitlines()
    keys = [
        "quque_max",
        "turn.queue_max",
        "turn.lease_ms",
        "gateway.token",
        "agents.main.model",
    ]
    assert [line.split()[1] for line in lines] == keys
    assert all(line.startswith("bad.toml: ") for line in lines)
    assert lines[1] == (
        "bad.toml: turn.queue_max = 'many': a whole number from 1 to 2147483647"
    )
    assert "did you mean turn.queue_max?" in lines[0]
    assert "agents.main.object (bad.toml)" in lines[4]
    assert "hush" not in told
    assert main(["config", "check", "bad.toml", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["file"]) == (False, "bad.toml")
    assert [problem["key"] for problem in found["problems"]] == keys
    assert found["problems"][1] == {
        "source": "bad.toml", "key": "turn.queue_max", "value": "many",
        "allowed": "a whole number from 1 to 2147483647",
    }  # fmt: skip


def test_check_of_a_file_is_of_that_file_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "holdfast.toml").write_text(GOOD)
    monkeypatch.setenv("HOLDFAST_TURN__LEASE_MS", "soon")
    assert main(["config", "check", "holdfast.toml"]) == 0
    assert capsys.readouterr().out == "ok\n"
    assert main(["config", "check", "--json"]) == 2
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["source"] == "environment HOLDFAST_TURN__LEASE_MS"
    assert main(["config", "check", "holdfast.toml", "--config", "x"]) == 2


def test_a_file_that_is_not_toml_is_a_problem_with_a_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "holdfast.toml").write_text("[turn]\nqueue_max = \n")
    assert main(["config", "check"]) == 2
    assert capsys.readouterr().out.startswith("holdfast.toml:2: not TOML: ")
    assert main(["config", "check", "--json"]) == 2
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["key"] is None
    assert problem["source"] == "holdfast.toml"
    for words in (["config", "show"], ["send", "main", "x"]):
        assert main([*words, "--json"]) == 2
        told = capsys.readouterr()
        assert json.loads(told.out)["error"]["code"] == "bad_request"
        assert told.err.count("\n") == 1


def test_check_runs_no_code_of_agents_unless_asked(here: Path) -> None:
    (here / "holdfast.toml").write_text(GOOD)
    (here / "mine.py").write_text(MINE)
    checked = run("config", "check")
    assert (checked.returncode, checked.stdout) == (0, "ok\n")
    checked = run("config", "check", "--agents")
    assert (checked.returncode, checked.stdout) == (0, "mine was imported\nok\n")
    (here / "mine.py").write_text("x = 1 / 0")
    checked = run("config", "check", "--agents", "--json")
    assert checked.returncode == 2
    [problem] = json.loads(checked.stdout)["problems"]
    assert (problem["key"], problem["value"]) == ("agents.main.object", "mine:agent")
    assert "ZeroDivisionError" in problem["allowed"]


# ------------------------------------------------------------------------------- schema


def test_the_schema_takes_the_good_and_refuses_the_bad(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = []
    for words in ([], ["--json"]):
        assert main(["config", "schema", *words]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    assert told[0]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(told[0])
    validator = jsonschema_rs.validator_for(told[0])
    assert validator.is_valid(tomllib.loads(GOOD))
    paths = {
        "/".join(map(str, e.instance_path)) for e in validator.iter_errors(tomllib.loads(BAD))
    }
    assert paths == {
        "",
        "turn/queue_max",
        "turn/lease_ms",
        "gateway/token",
        "agents/main/model",
    }


# ------------------------------------------------------------- commands that go by a file


def test_commands_go_by_the_file_where_they_are_started(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "holdfast.toml").write_text("[gateway]\nmax_message_bytes = 5\n[agents.ops]")
    assert main(["send", "main", "too long"]) == 2
    assert "over the limit of 5" in capsys.readouterr().err
    assert main(["send", "agent:ops:main", "hello", "--no-wait"]) == 0  # Known by its name.
    (here / "holdfast.toml").write_text("[turn]\nquque_max = 5")
    for words in (["send", "main", "x"], ["turns", "list"], ["config", "show"]):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert "turn.quque_max = '5'" in told
        assert "mend it in holdfast.toml" in told


def test_send_answers_with_the_agent_of_the_settings(here: Path) -> None:
    (here / "holdfast.toml").write_text(GOOD)
    (here / "mine.py").write_text(MINE)
    sent = run("send", "main", "hello")
    assert (sent.returncode, sent.stderr) == (0, "")
    assert sent.stdout == "mine was imported\nmine: hello\n"
    sent = run("send", "main", "later", "--no-wait")
    assert "mine was imported" not in sent.stdout


def test_an_agent_that_cannot_be_had_is_told_before_anything_is_sent(here: Path) -> None:
    (here / "holdfast.toml").write_text(GOOD)
    sent = run("send", "main", "hello", "--json")
    assert sent.returncode == 2
    error = json.loads(sent.stdout)["error"]
    assert (error["code"], error["key"]) == ("bad_setting", "agents.main.object")
    assert "no module 'mine'" in error["message"]
    assert sent.stderr.count("\n") == 1
    listed = run("turns", "list", "--json")
    assert json.loads(listed.stdout)["turns"] == []


async def test_send_imports_nothing_where_another_answers(here: Path) -> None:
    (here / "holdfast.toml").write_text(GOOD)  # And there is no module `mine`.
    async with holdfast.open(here / "state", agent=ScriptedModel()):
        sent = await _in_thread("send", "main", "hello")
    assert (sent.returncode, sent.stderr) == (0, "")
    assert "hello" in sent.stdout


async def _in_thread(*words: str) -> subprocess.CompletedProcess[str]:
    import asyncio

    return await asyncio.to_thread(run, *words)


def test_founding_names_are_taken_with_one_line_on_stderr(here: Path) -> None:
    (here / "holdfast.toml").write_text("[session.writeLock]\nmaxHoldMs = 5000")
    sent = run("send", "main", "hello", "--no-wait")
    assert sent.returncode == 0
    notices = re.findall("maxHoldMs is now session.write_lock.max_hold_ms", sent.stderr)
    assert len(notices) == 1


def test_no_config_command_loads_anything_heavy() -> None:
    code = (
        "import sys; from holdfast.cli import main; main(['config', 'show']);"
        "heavy = {'asyncio', 'pydantic_ai', 'starlette', 'sqlite3'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_send_takes_a_file_of_settings_as_serve_and_chat_do(here: Path) -> None:
    """Its lanes and its agents are known; without the file they are refused by name."""
    file = here / "other.toml"
    file.write_text('[lanes.bulk]\nconcurrency = 3\n[agents.ops]\nmodel = "demo"\n')
    words = ["send", "agent:ops:main", "hello", "--lane", "bulk"]
    done = run(*words, "--config", str(file))
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    assert run(*words).returncode == 2

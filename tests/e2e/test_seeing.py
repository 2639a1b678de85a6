"""`why`, `top`, `turns`, `lab report` and their HTTP paths, on stores that real processes use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest

from holdfast.testing import ModelServer
from holdfast.testing.model_server import Step
from support.crowd import Member
from support.serving import Served, events
from support.terminal import CTRL_C, Terminal

WITHIN_S = 60
HANG = Step(end="hang")


def run(*words: str, state: Path, code: int = 0) -> str:
    """What a command says on stdout."""
    plain = {n: v for n, v in os.environ.items() if not n.startswith("HOLDFAST_")}
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", *words, "--store", str(state)],
        env=plain, capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


def told(*words: str, state: Path) -> dict[str, Any]:
    return dict(json.loads(run(*words, "--json", state=state)))


@contextmanager
def holding(state: Path, **plan: Any) -> Iterator[Member]:
    """A runner whose first turn, in `agent:main:main`, has begun and does not end."""
    with ModelServer([HANG] * 20) as server:
        member = Member(state=str(state), base_url=server.base_url, **plan)
        with member:
            member.until("ready")
            member.go()
            assert server.wait(lambda: bool(server.requests), timeout_s=WITHIN_S)
            yield member


def queue(state: Path, *texts: str, key: str = "main", lane: str = "user") -> list[str]:
    """Messages handed in without waiting; their turns' ids."""
    return [
        told("send", key, text, "--lane", lane, "--no-wait", state=state)["turn_id"]
        for text in texts
    ]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


# ------------------------------------------------------------------------------------- why


def test_a_held_session_says_who_holds_it_and_who_waits_for_what(state: Path) -> None:
    with holding(state) as member:
        first, second = queue(state, "one", "two")
        why = told("why", "main", state=state)
        assert set(why) >= {"session", "state", "holder", "waiting", "next"}
        assert (why["session"], why["state"]) == ("agent:main:main", "running")
        holder = why["holder"]
        assert (holder["pid"], holder["life"], holder["lane"]) == (member.pid, "alive", "user")
        assert [each["turn_id"] for each in why["waiting"]] == [first, second]
        assert [each["position"] for each in why["waiting"]] == [1, 2]
        for each in why["waiting"]:
            assert "has been running for" in each["reason"]
            assert holder["turn_id"][:13] in each["reason"]
            assert each["since"]
        assert "is the next one" in why["next"]
        assert why["broken"] == []
        text = run("why", "agent:main:main", state=state)
        assert f"pid {member.pid}" in text
        assert second in text


def test_a_frozen_owner_is_named_and_what_becomes_of_it(state: Path) -> None:
    with holding(state) as member:
        queue(state, "one")
        member.signal(signal.SIGSTOP)
        member.wait_stopped()
        why = told("why", "main", state=state)
        assert why["holder"]["life"] == "stopped"
        [frozen] = [each for each in why["broken"] if each["condition"] == "frozen"]
        assert str(member.pid) in frozen["detail"]
        assert f"kill -CONT {member.pid}" in frozen["do"]
        assert f"kill -CONT {member.pid}" in run("why", "main", state=state)
        assert why["state"] == "blocked", "its runner is the only one there"
        member.signal(signal.SIGCONT)


def test_a_dead_owner_is_named_until_it_is_buried(state: Path) -> None:
    with holding(state) as member:
        queue(state, "one")
        member.signal(signal.SIGKILL)
        member.process.wait()
        why = told("why", "main", state=state)
        assert (why["state"], why["holder"]["life"]) == ("blocked", "dead")
        conditions = {each["condition"] for each in why["broken"]}
        assert conditions == {"owner", "runner"}
        assert why["waiting"][0]["waiting_for"] == "no_runner"
        assert "holdfast serve" in why["next"]
        [wait] = told("top", "--once", state=state)["waits"]
        assert wait["waiting_for"] == "no_runner"


def test_no_runner_is_said_by_every_command(state: Path) -> None:
    [turn_id] = queue(state, "one")
    sent = told("send", "main", "two", "--no-wait", state=state)
    assert "no runner for agent main" in sent["reason"]
    why = told("why", "main", state=state)
    assert (why["state"], why["holder"]) == ("blocked", None)
    assert why["broken"][0]["condition"] == "runner"
    [listed, _] = told("turns", "list", "--session", "main", state=state)["turns"]
    assert (listed["turn_id"], listed["waiting_for"]) == (turn_id, "no_runner")
    assert "no runner for agent main" in listed["waits"]
    assert "no runner for agent main" in run("turns", "list", state=state)
    shown = told("turns", "show", turn_id, state=state)
    assert "no runner" in shown["waits"]
    assert (shown["tool_calls"], shown["deliveries"], shown["merged"]) == ([], [], [])
    assert "no runner" in run("top", state=state)


def test_a_full_lane_is_named(state: Path) -> None:
    settings = {"lanes.cron.concurrency": 1}
    with holding(state, lanes=["cron"], settings=settings):
        queue(state, "one", key="agent:main:other", lane="cron")
        os.environ["HOLDFAST_LANES__CRON__CONCURRENCY"] = "1"
        try:
            found = subprocess.run(
                [sys.executable, "-m", "holdfast", "why", "agent:main:other", "--json",
                 "--store", str(state)], capture_output=True, text=True, check=True,
                timeout=WITHIN_S,
            )  # fmt: skip
        finally:
            del os.environ["HOLDFAST_LANES__CRON__CONCURRENCY"]
        why = json.loads(found.stdout)
        assert why["state"] == "waiting"
        assert why["waiting"][0]["reason"] == (
            "waiting for a free slot of lane cron (1 of 1 in use)"
        )
        assert "when a turn of lane cron ends" in why["next"]


def test_a_transcript_that_is_gone_is_named(state: Path) -> None:
    run("send", "main", "hello", state=state)
    [path] = state.rglob("*.jsonl")
    path.unlink()
    why = told("why", "main", state=state)
    assert (why["state"], why["broken"][0]["condition"]) == ("idle", "store")
    assert str(path) in why["broken"][0]["detail"]


def test_looking_changes_nothing(state: Path) -> None:
    queue(state, "one")
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    for words in (["why", "main"], ["top"], ["turns", "list"], ["lab", "report"]):
        assert run(*words, state=state)
        assert told(*words, *(["--once"] if words == ["top"] else []), state=state)
    assert before == {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------- top


def test_top_once_and_as_json(state: Path) -> None:
    with holding(state) as member:
        queue(state, "one", "two")
        seen = told("top", "--once", state=state)
        assert (seen["running"], seen["waiting"]) == (1, 2)
        [lease] = seen["leases"]
        assert (lease["session"], lease["pid"]) == ("agent:main:main", member.pid)
        [wait] = seen["waits"]
        assert wait["waiting"] == 2
        assert "has been running for" in wait["reason"]
        user = next(each for each in seen["lanes"] if each["lane"] == "user")
        assert (user["running"], user["waiting"]) == (1, 2)
        plain = run("top", state=state)
        assert all(len(line) <= 80 for line in plain.splitlines()), plain
        assert str(member.pid) in plain
        assert "\x1b" not in plain


@pytest.mark.parametrize("key", ["q", CTRL_C])
def test_top_lives_on_the_other_screen_and_leaves_by_a_key(state: Path, key: str) -> None:
    with holding(state) as member, Terminal("top", store=state, columns=80) as terminal:
        terminal.until_shown("SESSION", str(member.pid), "q leaves")
        assert "\x1b[?1049h" in terminal.raw
        queue(state, "one")  # And it is seen without a key.
        terminal.until(lambda: "next in line" in terminal.shown, "the turn that waits")
        assert all(len(line) <= 80 for line in terminal.display.lines)
        terminal.type(key)
        assert terminal.read_to_end() == (0 if key == "q" else 130)
        assert "\x1b[?1049l" in terminal.raw
        assert terminal.is_as_before


# ------------------------------------------------------------------------------------ report


def test_the_report_tells_who_waited_for_whom(state: Path, tmp_path: Path) -> None:
    with Member(
        state=str(state), lanes=["user", "heartbeat"], per_lane=3, delay_s=0.01
    ) as all_:
        all_.until("ready")
        all_.go()
        all_.until("done")
    svg = tmp_path / "report.svg"
    found = json.loads(run("lab", "report", "--json", "--svg", str(svg), state=state))
    assert found["turns"] == 6
    assert found["outcomes"] == {"replied": 6}
    pairs = {(each["waiting"], each["behind"]) for each in found["contention"]}
    assert ("heartbeat", "user") in pairs
    assert found["waits"]["heartbeat"]["turns"] == 3
    assert found["runs"]["user"]["max_ms"] >= found["runs"]["user"]["p50_ms"] > 0
    assert found["worst"][0]["key"] == "agent:main:main"
    assert minidom.parse(str(svg)).documentElement.tagName == "svg"
    text = run("lab", "report", state=state)
    assert "Who waited for whom" in text
    assert "heartbeat" in text
    later = json.loads(run("lab", "report", "--since", "2999-01-01", "--json", state=state))
    assert (later["turns"], later["contention"]) == (0, [])
    assert "SVG" not in run("lab", "report", "--since", "1h", state=state)
    run("lab", "report", "--svg", str(tmp_path / "no" / "report.svg"), state=state, code=2)
    run("lab", "report", "--since", "yesterday", state=state, code=2)


# -------------------------------------------------------------------------------------- HTTP


def test_the_same_over_http(state: Path) -> None:
    with (
        ModelServer([HANG]) as model,
        Served(
            state, "--model", "openai-chat:test",
            env={**model.environment, "HOLDFAST_TURN__WAIT_WARN_MS": "300"},
        ) as served,
        served.client() as http,
    ):  # fmt: skip
        begun = http.post("/v1/sessions/main/messages", json={"text": "one"}).json()
        assert begun["reason"] == ""
        assert model.wait(lambda: bool(model.requests), timeout_s=WITHIN_S)
        receipt = http.post("/v1/sessions/main/messages", json={"text": "two"}).json()
        assert (receipt["position"], receipt["waiting_for"]) == (1, "turn")
        assert "next in line; the user turn" in receipt["reason"]

        why = http.get("/v1/sessions/main/why").json()
        assert (why["state"], why["holder"]["turn_id"]) == ("running", begun["turn_id"])
        assert why["waiting"][0]["turn_id"] == receipt["turn_id"]
        assert http.get("/v1/sessions/agent:main:nowhere/why").status_code == 404

        lanes = {each["lane"]: each for each in http.get("/v1/lanes").json()["lanes"]}
        assert (lanes["user"]["running"], lanes["user"]["waiting"]) == (1, 1)

        page = http.get("/v1/events", params={"limit": 1}).json()
        assert [each["kind"] for each in page["events"]] == ["accepted"]
        rest = http.get("/v1/events", params={"after": page["next"]}).json()
        assert rest["events"][0]["id"] > page["next"]
        assert rest["next"] >= rest["events"][-1]["id"]
        only = http.get("/v1/events", params={"kinds": "lease", "session": "main"}).json()
        assert {each["kind"] for each in only["events"]} == {"lease"}
        # The warning of a long wait is an event; who waits for one gets it when it comes.
        warned = http.get("/v1/events", params={"kinds": "wait", "wait": 20}).json()
        assert warned["events"][0]["turn_id"] == receipt["turn_id"]
        assert warned["events"][0]["data"]["blocker"] == begun["turn_id"]
        assert "lane wait exceeded: lane=user" in served.log.read_text()
        for wrong in ({"after": "x"}, {"after": 2**70}, {"limit": 0}, {"wait": -1}):
            assert http.get("/v1/events", params=wrong).status_code == 422
        assert http.get("/v1/events", params={"session": "bad key"}).status_code == 422

        with http.stream("GET", f"/v1/turns/{receipt['turn_id']}/events") as answer:
            happening = events(answer.iter_lines())
            kind, data, _ = next(happening)
            assert (kind, data["position"]) == ("accepted", 1)
            assert "next in line" in data["reason"]
            kind, data, _ = next(happening)  # Still there, and told again.
            assert (kind, data["waiting_for"]) == ("position", "turn")
            assert data["waited_ms"] >= 300
            assert "next in line" in data["reason"]

"""Incidents: an operator who could not see what was wrong, or was shown what was not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from holdfast.lab.scenarios import Scenario
from holdfast.lab.scenarios._cast import (
    KEY,
    QUICK,
    Echo,
    Hands,
    Story,
    open_,
    outcomes,
)
from holdfast.lab.scenarios._peers import PEERS

if TYPE_CHECKING:
    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.scenarios import Saw

__all__ = ["SCENARIOS", "blind_operator"]

#: A stopped owner keeps its lease for all of the scenario.
PATIENT: Final = {**QUICK, "turn.lease_ms": 60_000}


async def blind_operator(state: str) -> Saw:
    """What the commands say of a busy store, a stopped process, a dead one, a bad file."""
    story = Story()
    async with Hands() as hands:
        await _busy(story, hands, state)
        agent = Echo()
        async with open_(state, agent=agent, settings=PATIENT) as hf:
            turn = await _stopped(story, hands, state)
            await hands.killed("stops")
            story("that process is killed")
            await outcomes(hf, [turn])
            await _told_of(story, hf, turn)
            await _local_fault(story, hf, agent)
    return story.saw()


async def _busy(story: Story, hands: Hands, state: str) -> None:
    """A gateway with a turn that runs, and two that wait: nothing is wrong."""
    says = [{"key": KEY, "text": f"a {word} one"} for word in ("slow", "second", "third")]
    pid = hands.start("busy", "runs", state=state, says=says, slow="slow", settings=PATIENT)
    await hands.heard("busy", "ready")
    hands.order("go", "busy")
    turns = [(await hands.heard("busy", "accepted"))["turn"] for _ in says]
    await hands.heard("busy", "streaming")
    story(f"pid {pid} answers a message, and two wait: nothing is wrong")
    doctor, why = await _said("doctor", state), await _said("why", state, KEY)
    wrong = [each["code"] for each in doctor["findings"] if each["severity"] != "info"]
    story.check("doctor_finds_when_nothing_is_wrong", wrong, [])
    holder = why["holder"]
    story.check("why_names_who_holds_it", [holder["pid"], holder["turn_id"], holder["lane"]],
                [pid, turns[0], "user"])  # fmt: skip
    waits = [[each["turn_id"], each["blocker"]] for each in why["waiting"]]
    story.check("and_whom_each_waits_for", waits, [[turns[1], turns[0]], [turns[2], turns[0]]])
    story.check("and_what_is_broken", [each["condition"] for each in why["broken"]], [])
    await hands.killed("busy")
    async with open_(state, agent=Echo(), settings=PATIENT) as hf:
        await outcomes(hf, turns)  # Nobody's business any more.


async def _stopped(story: Story, hands: Hands, state: str) -> str:
    """One of two gateways is stopped with a transcript's write lock in its hands."""
    pid = hands.start(
        "stops", f"{PEERS}:counts", state=state, key=KEY, texts=["count"], settings=PATIENT,
        stop=("append.checked", 1),
    )  # fmt: skip
    await hands.heard("stops", "ready")
    hands.order("go", "stops")
    turn = str((await hands.heard("stops", "accepted"))["turn"])
    await hands.heard("stops", "stopping")
    await asyncio.to_thread(os.waitid, os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    story(f"pid {pid} is stopped in the middle of a write")
    doctor, why = await _said("doctor", state), await _said("why", state, KEY)
    [lock] = (await _said("locks", state, "list"))["locks"]
    wrong = [each for each in doctor["findings"] if each["severity"] == "error"]
    story.check("doctor_finds", _named(wrong, "code", pid), ["frozen_holder"])
    story.check("the_lock_names_its_turn",
                [lock["holder"]["pid"], turn in str(lock["holder"]["run_id"]),
                 lock["holder"]["lane"]], [pid, True, "user"])  # fmt: skip
    broken = _named(why["broken"], "condition", pid)
    story.check("why_says_what_is_broken", broken[:1], ["frozen"])
    others = set(broken) - {"frozen", "store"}  # It may have stopped in a transaction, too.
    story.check("and_nothing_else", sorted(others), [])
    story.check("and_what_to_do", f"kill -CONT {pid}" in why["next"], True)
    return turn


def _named(found: list[dict[str, Any]], what: str, pid: int) -> list[str]:
    """Kinds of what was found, each once; with a mark where *pid* is not named."""
    return sorted({each[what] + ("" if str(pid) in each["detail"] else " ?") for each in found})


async def _told_of(story: Story, hf: Holdfast, turn: str) -> None:
    """Who was taken over from whom, and why: by turn, owner and token, in the event log."""
    events = [e for e in await hf.store.control.events() if e.turn_id == turn]
    kinds = [event.kind for event in events]
    story.check("events_of_it", kinds[:6],
                ["accepted", "lease", "fenced", "requeue", "lease", "commit"])  # fmt: skip
    story.check("reason", events[3].data.get("reason"), "owner_died")
    tokens = events[2].data
    story.check("fenced_by_a_newer_token", tokens["newer"] > tokens["token"], True)


async def _local_fault(story: Story, hf: Holdfast, agent: Echo) -> None:
    """A transcript that nobody can read is not the models' fault."""
    asked = len(agent.asked)
    first = await hf.submit("agent:main:bad", "hello")
    await outcomes(hf, [first.turn_id])
    path = hf.store.transcripts.path(await hf.session("agent:main:bad"))
    _damage(str(path))
    again = await hf.submit("agent:main:bad", "hello?")
    found = await outcomes(hf, [again.turn_id])
    row = await hf.store.control.turn(again.turn_id)
    story("a transcript is damaged; a message comes for it")
    story.check("of_the_damaged_one", [found[again.turn_id], row.reason, bool(row.hint)],
                ["failed", "bad_transcript", True])  # fmt: skip
    story.check("models_asked_for_it", len(agent.asked) - asked, 1)


def _damage(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"not a header")


async def _said(command: str, state: str, *more: str) -> Any:
    """What one of our commands says, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "holdfast", command, *more, "--json", "--store", state,
        stdout=asyncio.subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip
    told, _ = await process.communicate()
    return json.loads(told)


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-nobody-could-see-why",
        ("openclaw#34636", "openclaw#113019", "openclaw#83510", "openclaw#13744",
         "openclaw#85913"),
        "Doctor called healthy locks stale; a lock named no run, the watchdog said nothing, and"
        " no event told of waits or takeovers; local faults were shown as `all models failed`.",
        "Doctor is silent while nothing is wrong and names process and cause when something"
        " is; so do `why`, the lock itself and the events; a local fault is told as one.",
        blind_operator,
    ),
)  # fmt: skip

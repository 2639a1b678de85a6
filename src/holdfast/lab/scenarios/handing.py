"""Incidents: who has the session, and will not let go of it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from holdfast.lab.scenarios import Scenario
from holdfast.lab.scenarios._cast import (
    KEY,
    QUICK,
    Echo,
    Hands,
    Story,
    facts_of,
    open_,
    outcomes,
    until,
)
from holdfast.lab.scenarios._peers import PEERS

if TYPE_CHECKING:
    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.scenarios import Saw

__all__ = ["SCENARIOS", "idle_owner"]

SITS: Final = f"{PEERS}:sits"
#: A stopped owner keeps its lease for all of the scenario; a dead one for none of it.
PATIENT: Final = {**QUICK, "turn.lease_ms": 60_000}


async def idle_owner(state: str, sits: str = SITS) -> Saw:
    """Three programs have a session and do nothing with it: one idle, one stopped, one dead."""
    story, agent = Story(), Echo()
    async with Hands() as hands, open_(state, agent=agent, settings=PATIENT) as hf:
        for owner in (_idle, _stopped, _orphaned):
            if not await owner(story, hands, hf, sits):
                return story.saw()  # The next one would wait behind it.
        facts = await facts_of(hf)
        story.check("asked_of_the_model", [prompt.text for prompt in agent.asked],
                    ["behind idle", "behind stopped", "behind dead"])  # fmt: skip
        story.check("interleaved", facts.interleaved, 0)
        counts = await hf.store.control.counts()
        story.check("left_behind", [counts.leases, counts.waiting], [0, 0])
    return story.saw()


async def _sitting(hands: Hands, hf: Holdfast, sits: str, name: str) -> tuple[int, str, str]:
    """A program that sits on the session: its pid, its turn, and a message behind it."""
    pid = hands.start(name, sits, state=hf.store.where, key=KEY)
    held = (await hands.heard(name, "sitting"))["turn"]
    behind = await hf.submit(KEY, f"behind {name}")
    return pid, held, behind.turn_id


async def _idle(story: Story, hands: Hands, hf: Holdfast, sits: str) -> bool:
    pid, held, behind = await _sitting(hands, hf, sits, "idle")
    why = (await hf.why(KEY)).to_json()
    story(f"pid {pid} has the session and does nothing; a message stands behind it")
    story.check("named", [why["holder"]["pid"], why["waiting"][0]["blocker"]], [pid, held])
    story(f"told to who waits: {why['waiting'][0]['reason']}")
    answers = list[str | None]()

    async def asked() -> bool:
        handed = await hf.handover(KEY, timeout_s=1)
        answers.append(handed.answer)
        return handed.answer == "let_go"  # It is busy for two seconds: it may be thinking.

    await until(asked, hf)
    found = await outcomes(hf, [behind, held])
    story.check("asked_to_let_go", answers[-1], "let_go")
    story.check("behind_the_idle_one", found[behind], "replied")
    ended = await hf.store.control.turn(held)  # type: ignore[arg-type]
    story.check("and_its_own_turn", [ended.outcome, ended.reason], ["cancelled", "handed_over"])
    return found[behind] == "replied"


async def _stopped(story: Story, hands: Hands, hf: Holdfast, sits: str) -> bool:
    pid, _, behind = await _sitting(hands, hf, sits, "stopped")
    hands.signal("stopped", signal.SIGSTOP)
    story(f"pid {pid} has the session, and is stopped")

    async def seen() -> bool:
        return (await hf.why(KEY)).life == "stopped"

    await until(seen, hf)
    handed = await hf.handover(KEY, timeout_s=0.3)
    found = await hf.why(KEY)
    story.check("the_stopped_one_answers", handed.answer, None)
    broken = [[each.condition, str(pid) in each.detail] for each in found.broken]
    story.check("said_of_it", broken, [["frozen", True]])
    await hands.killed("stopped")
    told = await outcomes(hf, [behind])
    story.check("behind_the_stopped_one_once_it_is_killed", told[behind], "replied")
    return told[behind] == "replied"


async def _orphaned(story: Story, hands: Hands, hf: Holdfast, sits: str) -> bool:
    pid, held, behind = await _sitting(hands, hf, sits, "dead")
    await hands.killed("dead")
    story(f"pid {pid} has the session, and is dead; nobody asks anybody for anything")
    told = await outcomes(hf, [behind, held])
    story.check("behind_the_dead_one", told[behind], "replied")
    story.check("the_dead_ones_turn", told[held], "failed")
    return True


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-the-session-has-an-owner-who-does-nothing",
        ("codex#33241", "codex#38297", "codex#39823", "codex#38150"),
        "First two writers were merged into one thread; then each thread had one writer, and"
        " an idle or orphaned one kept everybody out: `already has an active writer`, and not"
        " who, nor what to do.",
        "Who holds it is named with its pid and asked to let go: an idle one does, a stopped"
        " one is reported, a dead one's session is free by itself.",
        idle_owner,
    ),
)

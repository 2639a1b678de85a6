"""Incidents: work that even engines strand."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

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
)

if TYPE_CHECKING:
    from holdfast.lab.scenarios import Saw

__all__ = ["SCENARIOS", "pruned_worker"]

OTHER: Final = "agent:main:other"


async def pruned_worker(state: str) -> Saw:
    """
    Two workers go: one dies, the other is struck off the list while it has work.

    The third was started before, and is not started again.
    """
    story, agent = Story(), Echo()
    async with Hands() as hands, open_(state, agent=agent, settings=QUICK) as hf:
        turns, pids = list[str](), dict[str, int]()
        for name, key in (("dies", KEY), ("pruned", OTHER)):
            pids[name], accepted = await _at_work(hands, state, name, key)
            turns += accepted
        story("2 workers run a turn each, and have 2 more to start; a third one is idle")
        await hands.killed("dies")
        struck = _strike(state, pids["pruned"])
        await hands.killed("pruned")
        story("one is killed; the other's row is removed, and its process with it")
        found = await outcomes(hf, turns)
        story.check("rows_removed", struck, 1)
        story.check("outcomes", sorted(found.values()), ["replied"] * 6)
        facts = [await facts_of(hf, key) for key in (KEY, OTHER)]
        story.check("seen_in_each_session", [each.seen for each in facts], [3, 3])
        after = await hf.submit(OTHER, "the key is free")
        story.check("the_next_message", (await outcomes(hf, [after.turn_id]))[after.turn_id],
                    "replied")  # fmt: skip
        counts = await hf.store.control.counts()
        story.check("left_behind", [counts.leases, counts.waiting], [0, 0])
    return story.saw()


async def _at_work(hands: Hands, state: str, name: str, key: str) -> tuple[int, list[str]]:
    """A worker in the middle of the first of its three turns: its pid, and all of them."""
    says: list[dict[str, Any]] = [
        {"key": key, "text": f"{name} {n}", "source": name} for n in ("slow", "second", "third")
    ]
    pid = hands.start(name, "runs", state=state, says=says, slow="slow", settings=dict(QUICK))
    await hands.heard(name, "ready")
    hands.order("go", name)
    turns = [(await hands.heard(name, "accepted"))["turn"] for _ in says]
    await hands.heard(name, "streaming")
    return pid, turns


def _strike(state: str, pid: int) -> int:
    """As a tidy-up does that looks at nothing else.  Returns how many rows went."""
    database = sqlite3.connect(os.path.join(state, "control.db"), timeout=10)
    with closing(database), database:
        database.execute("PRAGMA foreign_keys = ON")
        return database.execute("DELETE FROM owners WHERE pid = ?", (pid,)).rowcount


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-a-pruned-worker-hides-its-jobs",
        ("dbos#804", "dbos#805", "dbos#716", "procrastinate#1518", "procrastinate#1446",
         "restate#5196", "cloudflare-agents#1553", "cloudflare-agents#2042"),
        "Recovery ran when a process was started, and then no more; a worker whose row had"
        " been tidied away hid its jobs from whoever looked for stalled ones; a key was held"
        " for ever.",
        "Every process looks every second, and a lease whose owner is not on the list is"
        " nobody's: its turn runs elsewhere, and so does what waited for that owner.",
        pruned_worker,
    ),
)  # fmt: skip

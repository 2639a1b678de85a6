"""Incidents: several writers on one store, and what became of what they wrote."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from holdfast.lab.oracle import read
from holdfast.lab.scenarios import Scenario
from holdfast.lab.scenarios._cast import (
    KEY,
    QUICK,
    Hands,
    Story,
    facts_of,
    open_,
    outcomes,
    within_s,
)
from holdfast.lab.scenarios._peers import PEERS, Counter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holdfast.lab.scenarios import Saw

__all__ = ["SCENARIOS", "last_writer_wins", "one_store_many_processes", "reload_and_continue"]

COUNTS: Final = f"{PEERS}:counts"
#: There a turn was given up when the store had been busy for 1.3 s.
BUSY_S: Final = 2.0
SILENT: Final[Mapping[str, Any]] = {"turn.lease_ms": 1_500, "abort.settle_ms": 200}


# ------------------------------------------------------------- one database, many processes


async def one_store_many_processes(state: str, gateway: str = COUNTS) -> Saw:
    """Gateways work; others look into the store and leave; a stranger keeps it busy."""
    story, keys = Story(), [f"agent:main:{name}" for name in ("ann", "bob", "cleo")]
    async with open_(state):
        pass  # There is a store.
    async with Hands() as hands:
        pids = {}
        for key in keys:
            texts = [f"{key} {n}" for n in range(6)]
            pids[key] = hands.start(
                key, gateway, state=state, key=key, texts=texts, settings=dict(QUICK)
            )
        hands.start("stranger", f"{PEERS}:occupies", state=state)
        hands.start("visitors", f"{PEERS}:visits", state=state, times=40)
        for name in (*keys, "stranger", "visitors"):
            await hands.heard(name, "ready")
        hands.order("go", "stranger")
        await hands.heard("stranger", "inside")
        hands.order("go", *keys)
        story(f"a stranger keeps the store busy for {BUSY_S:g} s; 3 gateways begin to work")
        await asyncio.sleep(BUSY_S)  # It is what happened: as long as that, and no longer.
        hands.order("release", "stranger")
        hands.order("go", "visitors")
        found = [(await hands.heard(key, "counted"))["outcomes"] for key in keys]
        await hands.ended("visitors")
        story("40 programs look into the store and leave")
        deleted = sum(_deleted(pid) for pid in pids.values())
        hands.order("end", *keys)
        for key in keys:
            await hands.ended(key)
    story.check("outcomes", sorted(_all(found)), ["replied"])
    story.check("files_that_went_under_their_holders", deleted, 0)
    story.check("integrity", _integrity(state), "ok")
    async with open_(state) as hf:
        turns = await hf.store.control.turns()
        story.check("turns_in_the_rows", len(turns), 18)
        there = [key for key in keys if key in {turn.session_key for turn in turns}]
        seen = [(await facts_of(hf, key)).seen for key in there]
    story.check("seen_in_each_session", seen, [6, 6, 6])
    return story.saw()


def _deleted(pid: int) -> int:
    """Files of the control store that this process has open and nobody else can see."""
    found = 0
    for fd in os.scandir(f"/proc/{pid}/fd"):
        name = os.readlink(fd.path)
        found += "control.db" in name and name.endswith("(deleted)")
    return found


def _integrity(state: str) -> str:
    database = sqlite3.connect(os.path.join(state, "control.db"))
    try:
        return str(database.execute("PRAGMA integrity_check").fetchone()[0])
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        database.close()


# ----------------------------------------------------------------- stale, and going on anyway


async def reload_and_continue(state: str, server: str = COUNTS) -> Saw:
    """A server falls silent in the middle of a turn; another one resumes it; both wake up."""
    story, settings = Story(), dict(SILENT)
    async with Hands() as hands:
        hands.start(
            "first", server, state=state, key=KEY, texts=["count"], settings=settings,
            hang=("made.added", 2),
        )  # fmt: skip
        await hands.heard("first", "ready")
        hands.order("go", "first")
        turn = (await hands.heard("first", "accepted"))["turn"]
        await hands.heard("first", "stopping")
        story("the first server stands still in the middle of a turn, behind its tool")
        async with open_(state, agent=Counter(), settings=settings) as hf:
            path = hf.store.transcripts.path(await hf.session(KEY))
            before = os.stat(path)
            found = await outcomes(hf, [turn])
            after = await hf.submit(KEY, "count on")
            found |= await outcomes(hf, [after.turn_id])
            story("the second one resumes it, replies, and answers the next message")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            size = os.stat(path).st_size
            story("the file's time is set to what it was: by its clock nothing was written")
            hands.order("end", "first")
            hands.signal("first", signal.SIGUSR1)
            told = (await hands.heard("first", "counted"))["outcomes"]
            await hands.ended("first")
            story("the first server wakes up and goes on with its turn")
            facts = await facts_of(hf)
            story.check("outcomes", list(found.values()), ["replied", "replied"])
            story.check("told_by_the_first", told, ["replied"])
            story.check("written_by_it_afterwards", os.stat(path).st_size - size, 0)
            replies = [list(each.replies) for each in facts.exchanges]
            story.check("replies", replies, [["1"], ["2"]])
            story.check("interleaved", facts.interleaved, 0)
            story.check("problems", list(facts.problems), [])
    return story.saw()


# --------------------------------------------------------------------------- last writer wins


async def last_writer_wins(state: str, gateway: str = COUNTS) -> Saw:
    """Two processes count in one conversation, each as fast as it can."""
    story, names, each = Story(), ("left", "right"), 6
    async with Hands() as hands:
        for name in names:
            texts = [f"{name} {n}" for n in range(each)]
            hands.start(name, gateway, state=state, key=KEY, texts=texts, settings=dict(QUICK))
        for name in names:
            await hands.heard(name, "ready")
        hands.order("go", *names)
        story(f"2 processes ask {each} times each at once: how many replies are there so far?")
        async with asyncio.timeout(within_s()):
            found = [(await hands.heard(name, "counted"))["outcomes"] for name in names]
        hands.order("end", *names)
        for name in names:
            await hands.ended(name)
    async with open_(state) as hf:
        path = str(hf.store.transcripts.path(await hf.session(KEY)))
    facts = await asyncio.to_thread(read, path)
    counted = [reply for exchange in facts.exchanges for reply in exchange.replies]
    story.check("outcomes", sorted(_all(found)), ["replied"])
    story.check("counted", counted, [str(n + 1) for n in range(2 * each)])
    story.check("seen_by_the_next", facts.seen, 2 * each)
    story.check("interleaved", facts.interleaved, 0)
    return story.saw()


def _all(found: Iterable[Iterable[str]]) -> set[str]:
    return {outcome for each in found for outcome in each}


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-many-processes-on-one-database",
        ("hermes-agent#110106", "hermes-agent#73411", "hermes-agent#74478",
         "hermes-agent#110082", "hermes-agent#109786"),
        "A program that looked into the database for a moment, a doctor too, took its log away"
        " from under a gateway, which wrote on into a deleted file until it was corrupt; and a"
        " turn that met a busy database was given up after 1.3 s.",
        "Nobody's log goes while it is held, and who meets a busy store waits for its place.",
        one_store_many_processes,
    ),
    Scenario(
        "incident-reload-and-continue",
        ("adk-python#4751", "adk-python#1733", "adk-python#3717"),
        "Stale was told by a clock's time: raised at equal times, missed at others; then what"
        " was stale was loaded again and written on, and two servers' entries stood"
        " interleaved in one conversation for good.",
        "A token that only goes up decides, whatever clocks and file times say: who was"
        " superseded writes no byte.",
        reload_and_continue,
    ),
    Scenario(
        "incident-last-writer-wins",
        ("agno#7479", "agno#9450", "strands#1176", "agentscope#2226", "agentscope-java#2146"),
        "A conversation was one value, read before the lock and saved at the end: of two runs"
        " the one that saved last took the other's messages away.",
        "A turn is shown the conversation under its lease, and adds to it.",
        last_writer_wins,
    ),
)  # fmt: skip

"""Incidents: which conversation a message belongs to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from holdfast.lab.scenarios import Scenario
from holdfast.lab.scenarios._cast import (
    KEY,
    QUICK,
    Echo,
    Hands,
    Story,
    count,
    facts_of,
    open_,
    outcomes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.scenarios import Saw

__all__ = ["SCENARIOS", "one_key_two_sessions", "two_keys_one_session"]

EACH: Final = 5  #: Messages of each process.

# -------------------------------------------------------------- one key, and two sessions

DESK: Final = "agent:main:desk"
SPELLINGS: Final = (DESK, "agent:main:DESK", "agent:Main:desk", DESK)


async def one_key_two_sessions(state: str, *, keys: Sequence[str] = SPELLINGS) -> Saw:
    """Processes write to a key that nobody has used, all at once; later it is reset."""
    story, agent = Story(), Echo(slow="long")
    async with Hands() as hands, open_(state, agent=agent, settings=QUICK) as hf:
        names = [f"sender {n}" for n in range(len(keys))]
        for name, key in zip(names, keys, strict=True):
            says = [{"key": key, "text": f"{name}, {n}"} for n in range(EACH)]
            hands.start(name, "sends", state=state, says=says, settings=QUICK)
        for name in names:
            await hands.heard(name, "ready")
        hands.order("go", *names)
        told = [await hands.heard(name, "accepted") for name in names for _ in range(EACH)]
        story(f"{len(keys)} processes send {EACH} messages each to one key, spelt as they like")
        story.check("sessions", len({each["session"] for each in told}), 1)
        found = await outcomes(hf, [each["turn"] for each in told])
        story.check("outcomes", count(found.values()), {"replied": len(told)})
        told.sort(key=lambda each: each["admission"])
        in_order = [prompt.text for prompt in agent.asked] == [each["text"] for each in told]
        story.check("asked_in_the_order_of_acceptance", in_order, True)
        knew = [len(prompt.history) for prompt in agent.asked]
        story.check("each_knew_all_before_it", knew == list(range(0, 2 * len(told), 2)), True)
        await _reset(story, hf, agent)
    story.check("transcripts", _transcripts(state), 2)
    return story.saw()


async def _reset(story: Story, hf: Holdfast, agent: Echo) -> None:
    """The key moves to a new session while one turn runs and two wait."""
    old = await hf.session(DESK)
    running = await hf.submit(DESK, "a long question")
    await agent.began.wait()
    waiting = [await hf.submit(DESK, f"afterwards {n}") for n in range(2)]
    moved = await hf.reset(DESK)
    agent.go.set()
    story("the key is reset while one message is being answered and two wait")
    turns = [running.turn_id, *(each.turn_id for each in waiting)]
    found = await outcomes(hf, turns)
    rows = [await hf.store.control.turn(turn) for turn in turns]
    story.check("all_three", list(found.values()), ["replied"] * 3)
    where = ["old" if row.session_id == old.session_id else "new" for row in rows]
    story.check("answered_in", where, ["old", "new", "new"])
    new = {row.session_id for row in rows[1:]}
    story.check("one_new_session", new == {moved.new.session_id}, True)
    knew = [len(p.history) for p in agent.asked if p.text.startswith("afterwards")]
    story.check("knew_only_the_new_one", knew, [0, 2])


def _transcripts(state: str) -> int:
    return sum(name.endswith(".jsonl") for _, _, names in os.walk(state) for name in names)


# -------------------------------------------------------------- two keys, and one session

TELEGRAM: Final = "agent:main:telegram:direct:ann"


async def two_keys_one_session(state: str, *, aliased: bool = True) -> Saw:
    """Two processes, each with an agent of its own, answer one conversation by two names."""
    story, keys = Story(), (KEY, TELEGRAM)
    async with Hands() as hands, open_(state, settings=QUICK) as hf:
        if aliased:
            await hf.add_alias(TELEGRAM, KEY)
            story(f"{TELEGRAM} is another name of {KEY}")
        for key in keys:
            says = [{"key": key, "text": f"{key} {n}"} for n in range(EACH)]
            hands.start(key, "runs", state=state, says=says, settings=QUICK)
        for key in keys:
            await hands.heard(key, "ready")
        hands.order("go", *keys)
        told = [await hands.heard(key, "accepted") for key in keys for _ in range(EACH)]
        story(f"two gateways take {EACH} messages each, one by either name, and answer them")
        story.check("sessions", len({each["session"] for each in told}), 1)
        found = await outcomes(hf, [each["turn"] for each in told])
        story.check("outcomes", count(found.values()), {"replied": 2 * EACH})
        hands.order("end", *keys)
        for key in keys:
            await hands.ended(key)
    agent = Echo()
    async with open_(state, agent=agent, settings=QUICK) as hf:
        later = [await hf.submit(key, f"and now, {key}?") for key in keys]
        found = await outcomes(hf, [each.turn_id for each in later])
        story.check("afterwards", list(found.values()), ["replied"] * 2)
        roles = [str(message.get("role")) for message in agent.asked[-1].history]
        story.check("both_are_known_to_the_next", len(roles), 4 * EACH + 2)
        story.check("they_alternate", roles == ["user", "assistant"] * (2 * EACH + 1), True)
        facts = await facts_of(hf)
        story.check("interleaved", facts.interleaved, 0)
        story.check("seen_by_the_next", facts.seen, 2 * EACH + 2)
        story.check("problems", list(facts.problems), [])
    return story.saw()


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-one-key-two-sessions",
        ("openclaw#85404",),
        "Two first messages to one key made two sessions: the lane put their runs in a row,"
        " but each had asked before it which session that was.",
        "Which session a key names is decided by the transaction that accepts the message,"
        " however the key is spelt; and moving a key moves who waits for it.",
        one_key_two_sessions,
    ),
    Scenario(
        "incident-two-keys-one-session",
        ("hermes#64934",),
        "Two routing keys led to one session and were locked apart: what they wrote was"
        " interleaved, question and answer no longer alternated, and the session stayed so.",
        "A name is resolved first; what is queued, leased and locked is the session, across"
        " processes.",
        two_keys_one_session,
    ),
)

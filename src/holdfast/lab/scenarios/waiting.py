"""Incidents: messages that had to wait, and were dropped for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.lanes import is_people
from holdfast.errors import RejectedError
from holdfast.lab.scenarios import Scenario
from holdfast.lab.scenarios._cast import (
    KEY,
    NOTHING,
    QUICK,
    Echo,
    Hands,
    Story,
    count,
    facts_of,
    locked,
    open_,
    outcomes,
    until,
)

if TYPE_CHECKING:
    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.scenarios import Saw

__all__ = ["SCENARIOS", "accepted_then_dropped"]

#: There it was a minute.  What takes long here takes longer than this.
TIMEOUT_MS: Final = 300
HURRY: Final = {**QUICK, "session.write_lock.acquire_timeout_ms": TIMEOUT_MS}


async def outlast() -> None:
    """What is under way takes thrice as long as anybody may wait for a lock."""
    await asyncio.sleep(3 * TIMEOUT_MS / 1000)


# ------------------------------------------------------------- a compaction has the lock


async def compaction_holds(state: str) -> Saw:
    """Another program keeps the write lock for longer than a writer waits for it."""
    story, agent = Story(), Echo(slow="long")
    async with Hands() as hands, open_(state, agent=agent, settings=HURRY) as hf:
        streaming = await hf.submit(KEY, "a long question")
        await agent.began.wait()
        path = hf.store.transcripts.path(await hf.session(KEY))
        pid = hands.start("compaction", "holds", path=str(path))
        await hands.heard("compaction", "ready")
        hands.order("go", "compaction")
        await hands.heard("compaction", "holding")
        story(f"a reply streams; a compaction (pid {pid}) takes the transcript's write lock")
        agent.go.set()
        later = [await hf.submit(KEY, f"message {n}") for n in (1, 2)]
        given_back = await until(lambda: _given_back(hf, 2), hf)
        story.check("waits_that_ran_out_at_least", 2 if given_back else 0, 2)
        says_so = await until(lambda: _waits_for(hf, streaming.turn_id, "write_lock"), hf)
        story.check("says_that_it_waits_for_the_lock", says_so, True)
        why = (await hf.why(KEY)).to_json()
        story.check("names_who_holds_it", _holder(why), pid)
        hands.order("release", "compaction")
        story("the compaction ends, long after every wait for the lock had run out")
        turns = [streaming.turn_id, *(each.turn_id for each in later)]
        found = await outcomes(hf, turns)
        rows = [await hf.store.control.turn(turn) for turn in turns]
        story.check("outcomes", list(found.values()), ["replied"] * 3)
        story.check("attempts", [row.attempts for row in rows], [1, 1, 1])
        story.check("model_calls", [prompt.text for prompt in agent.asked],
                    ["a long question", "message 1", "message 2"])  # fmt: skip
        story.check("seen_by_the_next", (await facts_of(hf)).seen, 3)
    return story.saw()


def _holder(why: dict[str, Any]) -> int | None:
    """The pid that has the write lock, as `why` tells it."""
    lock = why["write_lock"]
    return None if lock is None else lock["holder"]["pid"]


async def _given_back(hf: Holdfast, times: int) -> bool:
    events = await hf.store.control.events(kinds=["give_back"])
    return len(events) >= times


async def _waits_for(hf: Holdfast, turn_id: str, what: str) -> bool:
    place = await hf.store.control.place(turn_id, hf.settings.lanes)  # type: ignore[arg-type]
    return place.waiting_for == what


# -------------------------------------------------------------------------- accepted, lost

DESK: Final = "agent:main:desk"


async def accepted_then_dropped(state: str, *, callers_store: str | None = None) -> Saw:
    """
    Other sessions write to a busy one and are told `accepted`; they do not live to hear more.

    Args:
        callers_store: where the caller is told `accepted`; None: in the store itself.
    """
    story, agent = Story(), Echo(slow="long", fails="wrong key")
    say = [{"key": DESK, "text": text, "lane": "subagent"} for text in ("one", "wrong key")]
    last = {"key": DESK, "text": "two", "lane": "subagent", "idempotency_key": "two"}
    async with Hands() as hands, open_(state, agent=agent, settings=HURRY) as hf:
        busy = await hf.submit(DESK, "a long question")
        await agent.began.wait()
        story("a session is busy with a long question")
        hands.start(
            "caller", "sends", state=callers_store or state, settings=HURRY,
            says=[*say, {**last, "when": "dying"}], at=("admit.committed", 1),
        )  # fmt: skip
        await hands.heard("caller", "ready")
        hands.order("go", "caller")
        told = [(await hands.heard("caller", "accepted"))["turn"] for _ in say]
        assert await hands.ended("caller") < 0, "it was to die"
        story("its caller is told `accepted` twice, and dies before it is told a third time")
        try:
            await hf.submit(DESK, "now or never", policy="reject")
        except RejectedError as error:
            story.check("who_will_not_wait_is_told", type(error).__name__, "RejectedError")
        await outlast()
        agent.go.set()
        story("the session becomes free, long after a wait for a lock would have run out")
        rows = {turn.turn_id: turn for turn in await hf.store.control.turns()}
        story.check("accepted_and_kept", [turn in rows for turn in told], [True, True])
        third = await hf.submit(**last)  # type: ignore[arg-type]
        story.check("third_was_accepted_before", not third.fresh, True)
        asked = [turn for turn in told if turn in rows]
        found = await outcomes(hf, [busy.turn_id, *asked, third.turn_id])
        story.check("outcomes", list(found.values()),
                    ["replied", "replied", "failed", "replied"])  # fmt: skip
        ended = [await hf.store.control.turn(turn) for turn in asked[1:]]
        story.check("told_why_it_failed", [turn.reason for turn in ended], ["auth"])
        story.check("asked_once_each", sorted(prompt.text for prompt in agent.asked),
                    ["a long question", "one", "two", "wrong key"])  # fmt: skip
    return story.saw()


# -------------------------------------------------------------------------- burst typing

SESSIONS: Final = 31
BURST: Final = ("so", "wait", "I meant", "this one")
POLICIES: Final = ("collect", "steer", "interrupt")


async def burst_typing(state: str) -> Saw:
    """In 31 sessions somebody types four messages in a row, and the gateway dies of it."""
    story, agent = Story(), Echo()
    settings = {**QUICK, "turn.collect_quiet_ms": 1_000}
    at_once = sum(POLICIES[room % 3] != "collect" for room in range(SESSIONS))
    messages: list[dict[str, Any]] = [
        {
            "key": f"agent:main:room{room}", "text": text, "policy": POLICIES[room % 3],
            "behind": at_once if n else 0,
        }
        for n, text in enumerate(BURST)
        for room in range(SESSIONS)
    ]  # fmt: skip
    async with Hands() as hands:
        hands.start("gateway", "runs", state=state, says=messages, slow="", settings=settings)
        await hands.heard("gateway", "ready")
        hands.order("go", "gateway")
        told = [await hands.heard("gateway", "accepted") for _ in messages]
        await hands.heard("gateway", "streaming")
        await hands.killed("gateway")
    rooms = {each["turn"]: n % SESSIONS for n, each in enumerate(told)}
    story(f"{len(told)} messages accepted in {SESSIONS} sessions; then the gateway is killed")
    async with open_(state, agent=agent, settings=settings) as hf:
        found = await outcomes(hf, rooms)
        kinds = set(found.values())
        story(f"what became of them: {count(found.values())}")
        story.check("unknown_outcomes", sorted(kinds - {"replied", "merged", "cancelled"}), [])
        story.check("stuck", list(found.values()).count(NOTHING), 0)
        cancelled = {POLICIES[rooms[turn] % 3] for turn in found if found[turn] == "cancelled"}
        story.check("cancelled_by_policy", sorted(cancelled - {"interrupt"}), [])
        replied = {rooms[turn] for turn, kind in found.items() if kind == "replied"}
        story.check("sessions_answered", len(replied), SESSIONS)
        answered = [turn for turn, kind in found.items() if kind in {"replied", "merged"}]
        stand = [await _stands(hf, room) for room in range(SESSIONS)]
        missing = [turn for turn in answered if stand[rooms[turn]].get(turn) != 1]
        story.check("answered_and_not_asked_exactly_once", len(missing), 0)
        counts = await hf.store.control.counts()
        story.check("left_behind", [counts.waiting, counts.leases], [0, 0])
    return story.saw()


async def _stands(hf: Holdfast, room: int) -> dict[str, int]:
    """How often each turn's question stands in the transcript of a room."""
    tree = await hf.transcript(f"agent:main:room{room}")
    asked = [
        str(entry["holdfast"]["turn"])
        for entry in tree.entries.values()
        if entry["type"] == "message" and entry["message"]["role"] == "user"
    ]
    return count(asked)


# ------------------------------------------------------------------- time-outs (cluster)

WRITERS: Final = 161
QUEUED: Final = 41
LANES: Final = ("user", "heartbeat", "cron", "subagent")


async def lock_timeouts(state: str) -> Saw:
    """A run takes longer than anybody may wait for the lock; 41 more want its session."""
    story, agent = Story(), Echo(slow="long")
    async with Hands() as hands, open_(state, agent=agent, settings=HURRY) as hf:
        running = await hf.submit(KEY, "a long question")
        await agent.began.wait()
        path = str(hf.store.transcripts.path(await hf.session(KEY)))
        later = [
            await hf.submit(KEY, f"message {n}", lane=LANES[n % len(LANES)])
            for n in range(QUEUED)
        ]
        story(f"a run streams, and {QUEUED} messages of {len(LANES)} lanes queue behind it")
        hands.start("writers", "asks_for_locks", path=path, times=WRITERS, timeout_s=2.0)
        had = await hands.heard("writers", "asked")
        story.check("locks_had_by_others_meanwhile", had["had"], WRITERS)
        await outlast()
        agent.go.set()
        turns = [running.turn_id, *(each.turn_id for each in later)]
        found = await outcomes(hf, turns)
        story.check("outcomes", count(found.values()), {"replied": QUEUED + 1})
        refused = await hf.store.control.events(kinds=["give_back", "requeue"])
        story.check("waits_that_ran_out", len(refused), 0)
        people = [prompt.text for prompt in agent.asked if is_people(prompt.lane)]
        wanted = ["a long question", *(f"message {n}" for n in range(0, QUEUED, len(LANES)))]
        story.check("people_in_their_order", people == wanted, True)
        story.check("seen_by_the_next", (await facts_of(hf)).seen, QUEUED + 1)
        counts = await hf.store.control.counts()
        story.check("leases_left", counts.leases, 0)
    story.check("locks_left", locked([path]), 0)
    return story.saw()


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-a-compaction-holds-the-lock",
        ("openclaw#129368",),
        "A compaction held the lock for 300 to 720 s; a message waited 60 s for it and was"
        " dropped, without another try.",
        "A wait that runs out costs nothing: the turn goes back to its place, says what it"
        " waits for and who has it, and is answered afterwards; a finished reply is kept"
        " meanwhile, and its model is not asked again.",
        compaction_holds,
    ),
    Scenario(
        "incident-accepted-then-dropped",
        ("openclaw#98415",),
        "A message to another session was `accepted`, waited 60 s in memory, and was dropped;"
        " its caller was never told.",
        "Accepted is a row.  It outlives its caller, has no time-out, and ends with an outcome"
        " that anybody may ask for.",
        accepted_then_dropped,
    ),
    Scenario(
        "incident-burst-typing",
        ("openclaw#148707",),
        "Somebody typed several messages in a row: 8 of 31 sessions failed, and 35 messages"
        " stayed `interrupted` for good.",
        "Each message has its place, or a place in another's run until that has answered it;"
        " a gateway that dies takes none of them along.",
        burst_typing,
    ),
    Scenario(
        "incident-lock-timeouts",
        ("openclaw#86538", "openclaw#86801", "openclaw#13744", "openclaw#86530"),
        "A run held its session's lock for 17 minutes while others waited 60 s for it: 161"
        " time-outs, 41 lanes refused; the lock outlived its session.",
        "While a model talks nothing is locked; who wants the session stands in its queue,"
        " which has no time-out, and nothing is left behind.",
        lock_timeouts,
    ),
)

"""Incidents: holds that nobody gave back, and sessions that stood still for days."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import CoordinationError, LeaseLostError
from holdfast.lab.scenarios import Scenario
from holdfast.lab.scenarios._cast import (
    KEY,
    QUICK,
    Story,
    facts_of,
    open_,
    outcomes,
    reply,
    until,
)
from holdfast.types import Text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.scenarios import Saw
    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = ["MOVES", "SCENARIOS", "Deaf", "leaked_lease", "stuck_for_days"]

#: Without progress for half a second a run is over, and its second one is the last.
MOVES: Final[Mapping[str, Any]] = {
    **QUICK, "recovery.warn_ms": 100, "models.idle_timeout_ms": 100,
    "turn.progress_timeout_ms": 500, "turn.max_attempts": 2,
}  # fmt: skip


class Deaf:
    """
    Says a word and then nothing, whatever is done to it, if asked something with `deaf` in it.

    Everything else it answers at once.
    """

    def __init__(self) -> None:
        self.began, self.released = asyncio.Event(), asyncio.Event()
        self.ignored = 0  #: Cancellations.

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        del hook
        yield Text("reply ")
        while "deaf" in prompt.text and not self.released.is_set():
            self.began.set()
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.ignored += 1
        yield reply(f"reply to: {prompt.text}")


# ------------------------------------------------------------------- a lease nobody gives back


async def leaked_lease(state: str) -> Saw:
    """A stopped run that does not end; a lease without a run; a hand on another's lease."""
    story, agent = Story(), Deaf()
    async with open_(state, agent=agent, settings=QUICK) as hf:
        try:
            if await _stopped(story, hf, agent):
                await _abandoned(story, hf)
        finally:
            agent.released.set()
        counts = await hf.store.control.counts()
        story.check("leases_at_the_end", counts.leases, 0)
    return story.saw()


async def _stopped(story: Story, hf: Holdfast, agent: Deaf) -> bool:
    """Whether the session is free again."""
    asked = await hf.submit(KEY, "deaf")
    await agent.began.wait()
    behind = await hf.submit(KEY, "behind it")
    story("a reply streams; /stop is said, and its model does not listen")
    await hf.cancel(asked.turn_id)
    found = await outcomes(hf, [asked.turn_id, behind.turn_id])
    story.check("stopped", found[asked.turn_id], "cancelled")
    story.check("asked_to_end_and_deaf_to_it", agent.ignored > 0, True)
    story.check("the_next_message", found[behind.turn_id], "replied")
    return found[behind.turn_id] == "replied"


async def _abandoned(story: Story, hf: Holdfast) -> None:
    """Its process lives, and nothing in it knows of the lease: no `finally` will come."""
    control, me = hf.store.control, hf.store.owner.owner_id
    async with hf.turn(KEY, "a program of its own") as own:
        receipt = await hf.submit(KEY, "leaked")
        story("another turn waits; as soon as it may run, a lease is taken for it by nobody")
        picked = asyncio.create_task(_taken_by_nobody(hf, receipt.turn_id))
        with suppress(LeaseLostError):
            await control.end(own.turn_id, own.token + 7, "failed", "not_mine", None)  # type: ignore[arg-type]
            story("a waiter with another's token has ended the turn of who holds the lease")
        with suppress(CoordinationError):  # It is to be told below.
            await own.reply("done")
    ended = await control.turn(own.turn_id)  # type: ignore[arg-type]
    story.check("a_wrong_token_ends_nothing", ended.outcome, "replied")
    token = await picked
    found = await outcomes(hf, [receipt.turn_id])
    events = await control.events(kinds=["fenced", "requeue", "give_back"])
    told = [e.kind for e in events if e.turn_id == receipt.turn_id and e.owner_id == me]
    story.check("leaked_by_the_living", token is not None, True)
    story.check("told_of_it", bool(told), True)
    story.check("the_leaked_turn", found[receipt.turn_id], "replied")
    story.check("replies_that_the_next_turn_sees", (await facts_of(hf)).seen, 3)


async def _taken_by_nobody(hf: Holdfast, turn_id: str) -> int | None:
    """A lease of this process that no run of it has; None: it was faster, every time."""
    control, me = hf.store.control, hf.store.owner.owner_id
    hf._runner.agents.pop("main")  # noqa: SLF001  Our own runner would be faster.
    try:
        leased = None
        while leased is None:
            leased = await control.pick(me, ["main"], hf.settings.lanes, only=turn_id)  # type: ignore[arg-type]
            await hf.change()
        return leased.token
    finally:
        hf._runner.agents["main"] = Deaf()  # noqa: SLF001


# ------------------------------------------------------------------ still for hours, or days


async def stuck_for_days(state: str) -> Saw:
    """One model call hangs for good; its session, its lane and new messages stand behind it."""
    story, agent = Story(), Deaf()
    settings = {**MOVES, "lanes.user.concurrency": 1}
    async with open_(state, agent=agent, settings=settings) as hf:
        try:
            await _hung(story, hf, agent)
        finally:
            agent.released.set()
    return story.saw()


async def _hung(story: Story, hf: Holdfast, agent: Deaf) -> None:
    hung = await hf.submit(KEY, "deaf")
    await agent.began.wait()
    queue = [await hf.submit(KEY, f"queued {n}") for n in range(3)]
    lane = await hf.submit("agent:main:other", "behind it in its lane")
    story("a model call hangs for good; 3 messages wait in its session, 1 for its lane")
    told = await until(lambda: _told(hf, "stuck"), hf)
    fresh = await hf.submit(KEY, "fresh")
    story("it is found to be stuck; while it is ended, a fresh message comes")
    turns = [each.turn_id for each in (hung, *queue, fresh, lane)]
    found = await outcomes(hf, turns)
    row = await hf.store.control.turn(hung.turn_id)
    story.check("told_of_it", told, True)
    story.check("the_hung_turn", [row.outcome, row.reason, row.attempts],
                ["failed", "no_progress", 2])  # fmt: skip
    story.check("the_others", [found[turn] for turn in turns[1:]], ["replied"] * 5)
    facts = await facts_of(hf)
    story.check("in_the_order_of_asking", [each.text for each in facts.exchanges],
                ["deaf", "queued 0", "queued 1", "queued 2", "fresh"])  # fmt: skip
    counts = await hf.store.control.counts()
    story.check("left_behind", [counts.leases, counts.waiting], [0, 0])


async def _told(hf: Holdfast, kind: str) -> bool:
    return bool(await hf.store.control.events(kinds=[kind]))


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-a-lease-that-leaked",
        ("hermes-agent#82349", "hermes-agent#110985", "hermes-agent#104691"),
        "A stopped turn, or a waiter that went on without the lease, left it held by nobody in"
        " a living process: each message was turned away until somebody restarted it.",
        "A stop is over within its bound though the model is deaf; a lease without a run is"
        " found by the process that leaked it, and no other token can end it.",
        leaked_lease,
    ),
    Scenario(
        "incident-stuck-for-days",
        ("openclaw#92270", "openclaw#86056", "openclaw#85639", "openclaw#91700",
         "openclaw#91802", "openclaw#130810"),
        "Sessions and whole lanes stood behind one run that did not move, for 14 hours, for"
        " 23 days; recovery released nothing once a fresh message had come.",
        "A run that does not move is told of, ended, tried once more and given up with its"
        " reason; everything behind it runs, in order.",
        stuck_for_days,
    ),
)  # fmt: skip

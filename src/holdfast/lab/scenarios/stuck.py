"""Incidents: sessions that nobody could use any more."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from holdfast._runtime.recovery import Recovery
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
    followed,
    locked,
    open_,
    outcomes,
    reply,
    until,
)
from holdfast.lab.scenarios._players import Mailbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.scenarios import Saw
    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt, Turn

__all__ = ["SCENARIOS"]

OTHER: Final = "agent:main:other"
SURFACES: Final = ("tui", "http", "telegram", "cli")

# ------------------------------------------------------------------- a claim that stayed


class Deaf(Echo):
    """Asked something with `deaf` in it, it ignores every end until it is let go."""

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        if "deaf" not in prompt.text:
            async for event in super().respond(prompt, hook):
                yield event
            return
        self.asked.append(prompt)
        self.began.set()
        while not self.go.is_set():
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                continue
        yield reply("nobody waits for this")


async def turn_claim_stuck(state: str) -> Saw:
    """One run is interrupted by a kill, one by a person while its model hears nothing."""
    story, agent = Story(), Deaf()
    async with Hands() as hands:
        says = [{"key": KEY, "text": "a long question"}]
        hands.start("gateway", "runs", state=state, says=says, slow="long", settings=QUICK)
        await hands.heard("gateway", "ready")
        hands.order("go", "gateway")
        killed = (await hands.heard("gateway", "accepted"))["turn"]
        await hands.heard("gateway", "streaming")
        await hands.killed("gateway")
        story("a gateway is killed while its model talks; its turn holds the session")
    async with open_(state, agent=agent, settings=QUICK) as hf:
        deaf = await hf.submit(OTHER, "are you deaf?")
        await agent.began.wait()
        after = [await hf.submit(OTHER, "instead", policy="interrupt")]
        story("another run is interrupted, and its model goes on as if nothing had been said")
        after += [
            await hf.submit(key, f"from {surface}", source=surface)
            for key in (KEY, OTHER)
            for surface in SURFACES
        ]
        found = await outcomes(hf, [killed, deaf.turn_id, *(each.turn_id for each in after)])
        story.check("killed_run", found.pop(killed), "replied")
        story.check("interrupted_run", found.pop(deaf.turn_id), "cancelled")
        story.check("every_surface_of_both", count(found.values()), {"replied": 9})
        counts = await hf.store.control.counts()
        story.check("claims_left", counts.leases, 0)
        story("only now is the deaf model let go")
        agent.go.set()
    return story.saw()


# --------------------------------------------------------------- recovery that gives up

WATCHERS: Final = 3


async def recovery_gives_up(state: str) -> Saw:
    """Three processes recover one dead run at once; and a claim has no run behind it."""
    story, agent = Story(), Echo(slow="long")
    async with Hands() as hands, asyncio.TaskGroup() as group:
        watchers = [await _watcher(group, state) for _ in range(WATCHERS)]
        operator = watchers[0].hf
        says = [{"key": KEY, "text": "a long question"}]
        hands.start("gateway", "runs", state=state, says=says, slow="long", settings=QUICK)
        await hands.heard("gateway", "ready")
        hands.order("go", "gateway")
        dead = (await hands.heard("gateway", "accepted"))["turn"]
        await hands.heard("gateway", "streaming")
        look = await operator.store.control.look(operator.store.owner.owner_id)
        [stale] = look.leases
        await hands.killed("gateway")
        story(f"a gateway dies in a run; {WATCHERS} other processes see it, all at once")
        recover = [Recovery(each.hf.store, operator.settings, _nobody) for each in watchers]
        await asyncio.gather(*(each.end_attempt(stale, "owner_died") for each in recover))
        story.check("back_in_its_place", await _again(operator, dead), True)
        fenced = await operator.store.control.events(kinds=["fenced"])
        story.check("fenced_by_so_many", len(fenced), 1)
        lost = await _claim_without_a_run(operator)
        story("a process holds a claim for which nothing runs; two messages stand behind it")
        story.check("found_and_put_back", await _again(operator, lost[0]), True)
        async with open_(state, agent=agent, settings=QUICK) as hf:
            await agent.began.wait()
            before = await operator.store.control.turn(dead)
            await recover[0].end_attempt(stale, "owner_died")
            after = await operator.store.control.turn(dead)
            story.check("old_news_change_nothing", after == before, True)
            agent.go.set()
            found = await outcomes(hf, [dead, *lost])
            story.check("outcomes", list(found.values()), ["replied"] * 4)
            asked = sorted(prompt.text for prompt in agent.asked)
            wanted = ["a long question", "behind 1", "behind 2", "no run"]
            story.check("asked_once_each", asked, wanted)
            story.check("seen_by_the_next", (await facts_of(hf)).seen, 1)
            story.check("claims_left", (await hf.store.control.counts()).leases, 0)
        for each in watchers:
            each.over.set()
    return story.saw()


def _nobody(turn: Turn) -> None:
    """Waits for its outcome here."""


class _Watcher:
    """A process without an agent, as far as the store knows."""

    hf: Holdfast

    def __init__(self, state: str) -> None:
        self._state = state
        self.ready, self.over = asyncio.Event(), asyncio.Event()

    async def watch(self) -> None:
        async with open_(self._state, settings=QUICK) as self.hf:
            self.ready.set()
            await self.over.wait()


async def _watcher(group: asyncio.TaskGroup, state: str) -> _Watcher:
    found = _Watcher(state)
    group.create_task(found.watch())
    await found.ready.wait()
    return found


async def _again(hf: Holdfast, turn_id: str) -> bool:
    """Whether its run was ended, and it waits for another."""

    async def waits() -> bool:
        turn = await hf.store.control.turn(turn_id)  # type: ignore[arg-type]
        return turn.state == "accepted" and turn.attempts == 1

    return await until(waits, hf)


async def _claim_without_a_run(hf: Holdfast) -> list[str]:
    """Messages, the first of them claimed by *hf*'s process, which runs nothing."""
    control, me = hf.store.control, hf.store.owner.owner_id
    texts = ("no run", "behind 1", "behind 2")
    told = [await hf.submit(OTHER, text) for text in texts]
    await control.register_runner(me, ["main"], permanent=False)
    leased = await control.pick(
        me, ["main"], hf.settings.lanes, session_id=(await hf.session(OTHER)).session_id
    )
    assert leased is not None
    assert leased.turn.turn_id == told[0].turn_id
    return [each.turn_id for each in told]


# ------------------------------------------------------------------- claimed, never done

#: How each of three gateways dies, and what its agent is slow at.
DEATHS: Final[dict[str, dict[str, Any]]] = {
    "leased": {
        "at": ("effect.loaded", 1),
        "says": [{"key": KEY, "text": "one"}, {"key": KEY, "text": "two"},
                 {"key": OTHER, "text": "three", "lane": "cron"}],
    },
    "running": {
        "slow": "long",
        "says": [{"key": KEY, "text": "a long question"},
                 {"key": KEY, "text": "and this", "policy": "steer", "behind": 1}],
        "bound": KEY,
    },
    "delivering": {
        "at": ("delivery.taken", 1),
        "says": [{"key": KEY, "text": "question", "target": "mailbox:ann"}],
    },
}  # fmt: skip
ENDS: Final = {
    "leased": {"replied": 3},
    "running": {"failed": 1, "merged": 1, "replied": 1},  # A program's own turn dies with it.
    "delivering": {"replied": 1},
}


async def claims_never_released(state: str) -> Saw:
    """Gateways die with everything in their hands that one can claim."""
    story = Story()
    async with Hands() as hands:
        for name, plan in DEATHS.items():
            home = os.path.join(state, name)
            says = [dict(each) for each in plan["says"]]
            more = {**plan, "says": says, "mailbox": f"{home}.mailbox"}
            hands.start(name, "runs", state=home, settings=QUICK, **more)
        for name in DEATHS:
            await hands.heard(name, "ready")
            hands.order("go", name)
            if name == "running":
                await hands.heard(name, "all_accepted")
                await hands.killed(name)
            else:
                assert await hands.ended(name) < 0, "it was to die"
    story("one dies between claiming a message and beginning it, with the write lock held;")
    story("one in a run, with a message steered in and a program's own turn waiting;")
    story("one while a reply is being sent")
    for name in DEATHS:
        await _released(story, name, os.path.join(state, name))
    return story.saw()


async def _released(story: Story, name: str, home: str) -> None:
    box = Mailbox(home, f"{home}.mailbox")
    async with open_(home, agent=Echo(), channels=[box], settings=QUICK) as hf:
        turns = await _all(hf)
        for plan in DEATHS[name]["says"]:  # Those that it did not live to hand in.
            if plan["text"] not in {turn.text for turn in turns}:
                await hf.submit(plan["key"], plan["text"], lane=plan.get("lane", "user"))
        turns = await _all(hf)
        found = await outcomes(hf, [turn.turn_id for turn in turns])
        story.check(f"{name}_outcomes", count(found.values()), ENDS[name])
        if NOTHING not in found.values():
            for turn in turns:
                await followed(hf, turn.turn_id)
        counts = await hf.store.control.counts()
        states = [each.state for each in await hf.store.control.deliveries()]
        paths = [
            hf.store.transcripts.path(await hf.session(turn.session_key)) for turn in turns
        ]
        owed = sum(each != "delivered" for each in states)
        left = [counts.waiting, counts.leases, owed, locked(paths)]
        story.check(f"{name}_left_waiting_leased_owed_locked", left, [0, 0, 0, 0])


async def _all(hf: Holdfast) -> list[Turn]:
    return await hf.store.control.turns()


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-a-turn-claim-stays",
        ("openclaw#128762",),
        "After an interrupted run its `active turn claim` stayed, and refused every surface,"
        " the terminal too; the way out was to go back a version.",
        "A claim is a lease: who died is proven dead, who does not let go is fenced after the"
        " settle bound, and the session goes on.",
        turn_claim_stuck,
    ),
    Scenario(
        "incident-recovery-gives-up",
        ("openclaw#125980",),
        "Recovery lost a comparison against a newer row and gave up; from then on the watchdog"
        " said `no_active_work`, for ever, and the lane stood.",
        "Who loses the comparison was late: another one has done it.  And a claim with no run"
        " behind it is found by its own process, and put back.",
        recovery_gives_up,
    ),
    Scenario(
        "incident-claims-are-never-released",
        ("openclaw#90940",),
        "Events that a process had claimed when it died were never given to another one.",
        "Whatever can be claimed names its owner, and the owner's death gives it back: a"
        " message, a session, a lane's slot, a part being sent, a lock.",
        claims_never_released,
    ),
)

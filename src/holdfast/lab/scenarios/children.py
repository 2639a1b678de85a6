"""Incidents: turns that ask other turns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from holdfast.agents import _transcript
from holdfast.errors import DeadlockError
from holdfast.lab.scenarios import Scenario
from holdfast.lab.scenarios._cast import KEY, QUICK, Story, facts_of, open_, outcomes, reply
from holdfast.types import Made, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.scenarios import Saw
    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = ["CHILDREN", "SCENARIOS", "storm_of_children"]

CHILDREN: Final = 12
AT_ONCE: Final = 2
CHILD: Final = "agent:main:subagent:"
BACK: Final = "ask back"


class Family:
    """Parents that ask as many children as their question says, all at once."""

    def __init__(self) -> None:
        self.hf: Holdfast | None = None
        self.cycle: list[str] = []
        self.running = self.most = 0  #: Children at one time.

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        if prompt.session_key.startswith(CHILD):
            yield reply(await self._child(prompt.text))
            return
        if not prompt.text.isdigit():
            yield reply(f"reply to: {prompt.text}")
            return
        calls = [ToolCall(f"c{n}", "ask", {"n": n}, "safe") for n in range(int(prompt.text))]
        blocks = [_transcript.tool_call(c.call_id, c.name, c.arguments) for c in calls]
        used = _transcript.usage(fresh=1, output=1)
        asking = _transcript.assistant(
            blocks, provider="lab", model="echo", used=used, stop="toolUse"
        )
        yield Made(asking)
        asks = [hook(call, self._asking(n, len(calls))) for n, call in enumerate(calls)]
        told = [str(text) for text in await asyncio.gather(*asks)]
        for call, text in zip(calls, told, strict=True):
            yield Made(_transcript.tool_result(call.call_id, call.name, text, failed=False))
        yield reply(" ".join(told))

    def _asking(self, n: int, of: int) -> Callable[[], Coroutine[Any, Any, str]]:
        async def ask() -> str:
            assert self.hf is not None
            text = BACK if of == 1 else f"task {n}"
            outcome = await self.hf.ask(f"{CHILD}{of}.{n}", text, idempotency_key=f"{of}.{n}")
            return f"{outcome.kind}: {outcome.text};"

        return ask

    async def _child(self, text: str) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            return await self._asks_back() if text == BACK else f"{text} done"
        finally:
            self.running -= 1

    async def _asks_back(self) -> str:
        assert self.hf is not None
        try:
            return str((await self.hf.ask(KEY, "my result")).text)
        except DeadlockError as error:
            self.cycle = list(error.cycle)
            return "refused"


async def storm_of_children(state: str) -> Saw:
    """A child that asks back; then twelve at once, with two slots, and one for their parent."""
    story, family = Story(), Family()
    slots = {"lanes.user.concurrency": 1, "lanes.subagent.concurrency": AT_ONCE}
    async with open_(state, agent=family, settings={**QUICK, **slots}) as hf:
        family.hf = hf
        if await _asked_back(story, hf, family):
            await _storm(story, hf, family)
        counts = await hf.store.control.counts()
        story.check("left_behind", [counts.leases, counts.waiting], [0, 0])
    return story.saw()


async def _asked_back(story: Story, hf: Holdfast, family: Family) -> bool:
    parent = await hf.submit(KEY, "1")
    story("a parent waits for its child, and the child asks its parent's session")
    found = await outcomes(hf, [parent.turn_id])
    row = await hf.store.control.turn(parent.turn_id)
    story.check("parent_of_one", found[parent.turn_id], "replied")
    story.check("its_child_was", row.reply, "replied: refused;")
    story.check("cycle_is_named", parent.turn_id in family.cycle, True)
    return row.outcome is not None


async def _storm(story: Story, hf: Holdfast, family: Family) -> None:
    parent = await hf.submit(KEY, str(CHILDREN))
    story(f"a parent asks {CHILDREN} children at once; others want its session and its slot")
    others = [await hf.submit(key, "hello") for key in ("agent:main:other", KEY)]
    found = await outcomes(hf, [each.turn_id for each in (parent, *others)])
    row = await hf.store.control.turn(parent.turn_id)
    rows = await hf.store.control.turns()
    children = [each.outcome for each in rows if each.parent == parent.turn_id]
    story.check("outcomes", list(found.values()), ["replied"] * 3)
    story.check("children", children, ["replied"] * CHILDREN)
    story.check("at_one_time_at_most_their_slots", family.most <= AT_ONCE, True)
    arrived = sum(f"task {n} done" in (row.reply or "") for n in range(CHILDREN))
    story.check("results_that_reached_the_parent", arrived, CHILDREN)
    story.check("parents_runs", row.attempts, 1)
    story.check("seen_by_the_next", (await facts_of(hf)).seen, 3)


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-a-storm-of-children",
        ("openclaw#91650", "openclaw#90178", "openclaw#87537", "openclaw#153417",
         "openclaw#98415"),
        "Ten children finished while their parent's lane was taken: their results expired, 135"
        " in five days, or were retried in storms; a parent that waited for its child waited"
        " for good, for the child's result waited for the parent's lane.",
        "A parent that waits gives its slot back and is told every result; a wait that would"
        " never end is refused at once, with the cycle it would close.",
        storm_of_children,
    ),
)  # fmt: skip

"""Incidents: turns that ask other turns."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from holdfast.agents import _transcript
from holdfast.errors import DeadlockError
from holdfast.lab.scenarios import Saw, Scenario
from holdfast.lab.scenarios._cast import KEY, QUICK, Story, facts_of, open_, outcomes, reply
from holdfast.types import Made, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from holdfast._runtime.runtime import Holdfast
    from holdfast.ports import ToolHook
    from holdfast.types import AgentEvent, Prompt

__all__ = ["CHILDREN", "SCENARIOS", "storm_of_children"]

CHILDREN: Final = 12
AT_ONCE: Final = 2


class Family:
    """A parent asks its children; one of them asks its parent back."""

    def __init__(self) -> None:
        self.hf: Holdfast | None = None
        self.cycle: list[str] = []
        self.running = self.most = 0  #: Children at one time.

    async def respond(self, prompt: Prompt, hook: ToolHook) -> AsyncGenerator[AgentEvent, None]:
        if prompt.session_key != KEY:
            yield reply(await self._child(prompt))
            return
        if "children" not in prompt.text:
            yield reply(f"reply to: {prompt.text}")
            return
        calls = [ToolCall(f"c{n}", "ask", {"n": n}, "safe") for n in range(CHILDREN)]
        blocks = [_transcript.tool_call(each.call_id, each.name, each.arguments) for each in calls]
        used = _transcript.usage(fresh=1, output=1)
        yield Made(
            _transcript.assistant(blocks, provider="lab", model="echo", used=used, stop="toolUse")
        )
        told = await asyncio.gather(
            *(hook(call, self._asking(n, prompt)) for n, call in enumerate(calls))
        )
        for call, text in zip(calls, told, strict=True):
            yield Made(_transcript.tool_result(call.call_id, call.name, str(text), failed=False))
        yield reply(" ".join(map(str, told)))

    def _asking(self, n: int, prompt: Prompt) -> Callable[[], Coroutine[Any, Any, str]]:
        async def ask() -> str:
            assert self.hf is not None
            key, text = f"agent:main:subagent:{n}", "back" if n == 0 else f"task {n}"
            outcome = await self.hf.ask(key, text, idempotency_key=f"{prompt.turn_id}.{n}")
            return f"{outcome.kind}: {outcome.text};"

        return ask

    async def _child(self, prompt: Prompt) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            if prompt.text != "back":
                return f"{prompt.text} done"
            assert self.hf is not None
            try:
                outcome = await self.hf.ask(KEY, "my result")
            except DeadlockError as error:
                self.cycle = list(error.cycle)
                return "refused"
            return str(outcome.text)
        finally:
            self.running -= 1


async def storm_of_children(state: str) -> Saw:
    """Twelve children at once, two slots for them, one for everything else."""
    story, family = Story(), Family()
    settings = {
        **QUICK, "lanes.user.concurrency": 1, "lanes.subagent.concurrency": AT_ONCE,
    }  # fmt: skip
    async with open_(state, agent=family, settings=settings) as hf:
        family.hf = hf
        parent = await hf.submit(KEY, "ask your children")
        story(f"a parent asks {CHILDREN} children at once; one of them asks its parent back")
        other = await hf.submit("agent:main:other", "somebody else in the parent's lane")
        behind = await hf.submit(KEY, "behind it")
        turns = [each.turn_id for each in (parent, other, behind)]
        found = await outcomes(hf, turns)
        row = await hf.store.control.turn(parent.turn_id)
        rows = await hf.store.control.turns()
        children = [each for each in rows if each.parent == parent.turn_id]
        story.check("outcomes", list(found.values()), ["replied"] * 3)
        story.check("children", [len(children), sum(each.outcome == "replied" for each in children)],
                    [CHILDREN, CHILDREN])  # fmt: skip
        story.check("at_one_time_at_most", family.most <= AT_ONCE, True)
        story.check("results_that_reached_the_parent", (row.reply or "").count("replied:"), CHILDREN)
        story.check("parents_runs", row.attempts, 1)
        story.check("the_one_that_asked_back", (row.reply or "").count("refused"), 1)
        story.check("cycle_is_named", parent.turn_id in family.cycle, True)
        story.check("seen_by_the_next", (await facts_of(hf)).seen, 2)
        counts = await hf.store.control.counts()
        story.check("left_behind", [counts.leases, counts.waiting], [0, 0])
    return story.saw()


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

"""One process of the first light: it sends messages, and answers whatever it may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast import _assemble
from holdfast.agents.demo import DemoAgent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.lab.child import Child

__all__ = ["KEY", "take_part"]

KEY: Final = "agent:main:main"
#: Ten words a second: a pace at which a person can follow, and can see it break off.
WORD_DELAY_S: Final = 0.1


async def take_part(
    child: Child, *, state: str, lane: str, source: str, questions: Sequence[str]
) -> None:
    """Send all *questions* at once; stay, as a runner, until the parent has seen enough."""
    agent, all_are_answered = DemoAgent(delay_s=WORD_DELAY_S), {"turn.heartbeats_yield": False}
    async with _assemble.open(state, agent=agent, settings=all_are_answered) as hf:
        await child.ready(owner_id=hf.store.owner.owner_id)
        for question in questions:
            receipt = await hf.submit(KEY, question, lane=lane, source=source)
            child.say("accepted", turn_id=receipt.turn_id, text=question)
        await child.order("enough")

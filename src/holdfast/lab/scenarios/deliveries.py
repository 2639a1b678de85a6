"""Incidents: replies that came twice, and things that were done twice."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from holdfast.lab.scenarios import Scenario
from holdfast.lab.scenarios._cast import (
    KEY,
    QUICK,
    Echo,
    Hands,
    Story,
    facts_of,
    followed,
    open_,
    outcomes,
)
from holdfast.lab.scenarios._peers import PEERS, Effect
from holdfast.testing.receiver import Answer, Receiver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.lab.scenarios import Saw

__all__ = ["SCENARIOS", "restart_in_mid_delivery", "said_and_done_twice"]

GATEWAY: Final = f"{PEERS}:delivers"
SECRET: Final = "whsec_" + "aW5jaWRlbnRz" * 3
#: One that is cut short has ended by then; one that waits for its delivery has not.
ENDS_WITHIN_S: Final = 1.5


def channel(receiver: Receiver) -> dict[str, Any]:
    """Settings: replies go to *receiver*, signed."""
    return {**QUICK, "channels.crm.url": receiver.url, "channels.crm.secret": SECRET}


# ----------------------------------------------------------------- restarted in mid-delivery


async def restart_in_mid_delivery(state: str, gateway: str = GATEWAY) -> Saw:
    """A gateway is restarted, then another one killed, while its reply is on its way."""
    story = Story()
    await _restarted(story, os.path.join(state, "restarted"), gateway)
    await _killed(story, os.path.join(state, "killed"))
    return story.saw()


async def _on_its_way(
    hands: Hands, home: str, work: str, receiver: Receiver, held: Answer
) -> str:
    """A gateway whose reply has arrived and is not answered yet.  Returns its turn."""
    settings = channel(receiver)
    hands.start("gateway", work, state=home, text="report", target="crm:ann", settings=settings)
    await hands.heard("gateway", "ready")
    hands.order("go", "gateway")
    turn = str((await hands.heard("gateway", "accepted"))["turn"])
    assert held.reached is not None
    assert await asyncio.to_thread(held.reached.wait, 30)
    return turn


async def _restarted(story: Story, home: str, work: str) -> None:
    held = Answer().held()
    assert held.gate is not None
    with Receiver([held], secret=SECRET) as receiver:
        async with Hands() as hands:
            turn = await _on_its_way(hands, home, work, receiver, held)
            story("a reply is on its way; the gateway is asked to end in good order")
            hands.order("close", "gateway")
            await hands.heard("gateway", "draining")
            ended = asyncio.create_task(hands.ended("gateway"))
            waits = not (await asyncio.wait({ended}, timeout=ENDS_WITHIN_S))[0]
            held.gate.set()
            await ended
        agent, settings = Echo(), channel(receiver)
        async with open_(home, agent=agent, settings=settings) as hf:
            told = await followed(hf, turn)
            story("it is started again, and the user says: continue")
            more = await hf.submit(KEY, "continue", target="crm:ann")
            await followed(hf, more.turn_id)
            facts = await facts_of(hf)
    story.check("the_delivery_was_waited_for", waits, True)
    story.check("delivered_events", told.count("delivered"), 1)
    story.check("requests_for_it", _requests(receiver, turn), 1)
    story.check(
        "arrived_at_the_user", _texts(receiver), ["reply to: report", "reply to: continue"]
    )
    story.check("asked_of_the_model_afterwards", [p.text for p in agent.asked], ["continue"])
    story.check("replies", [list(each.replies) for each in facts.exchanges],
                [["reply to: report"], ["reply to: continue"]])  # fmt: skip


async def _killed(story: Story, home: str) -> None:
    """Whether it arrived cannot be known then: it is sent again as what it was."""
    held = Answer(drop="after").held()
    assert held.gate is not None
    with Receiver([held], secret=SECRET) as receiver:
        async with Hands() as hands:
            turn = await _on_its_way(hands, home, GATEWAY, receiver, held)
            await hands.killed("gateway")
        held.gate.set()
        await asyncio.to_thread(receiver.wait, lambda: bool(receiver.received))
        story("another gateway is killed there; the user has the reply, and no row says so")
        agent = Echo()
        async with open_(home, agent=agent, settings=channel(receiver)) as hf:
            await followed(hf, turn)
            [row] = await hf.store.control.deliveries(turn_id=turn)  # type: ignore[arg-type]
    story.check("sent_again", _requests(receiver, turn), 2)
    story.check("acted_on_by_the_receiver", len(receiver.processed), 1)
    story.check("with_other_bytes", receiver.mismatches, [])
    story.check("said_of_it", [row.state, "sent again" in (row.hint or "")],
                ["delivered", True])  # fmt: skip
    story.check("asked_again", len(agent.asked), 0)


def _requests(receiver: Receiver, turn: str) -> int:
    return sum(each.told.get("turn_id") == turn for each in receiver.received)


def _texts(receiver: Receiver) -> list[str]:
    """What a receiver that acts on each key once has shown its user."""
    return [each.told["text"] for each in receiver.received if each.processed]


# --------------------------------------------------------------------- said, and done, twice


async def said_and_done_twice(state: str) -> Saw:
    """A provider fails behind a payment, the gateway dies, and the user sends it all again."""
    story, effects = Story(), os.path.join(state, "payments")
    home, message = os.path.join(state, "store"), _payment()
    with Receiver([Answer(drop="after")], secret=SECRET) as receiver:
        settings = channel(receiver)
        async with Hands() as hands:
            hands.start(
                "gateway", f"{PEERS}:tries", state=home, effects=effects, message=message,
                settings=settings,
            )  # fmt: skip
            await hands.heard("gateway", "ready")
            hands.order("go", "gateway")
            turn = (await hands.heard("gateway", "accepted"))["turn"]
            assert await hands.ended("gateway") < 0, "it was to die"
        story("a payment is made; the provider fails, is asked again, and the gateway dies")
        agent = Effect(effects)
        async with open_(home, agent=agent, settings=settings) as hf:
            again = await hf.submit(**message)
            found = await outcomes(hf, [turn])
            story("the user has heard nothing, and sends the same message once more")
            twice = await hf.submit(**message)
            await followed(hf, turn)
            facts = await facts_of(hf)
            rows = await hf.store.control.turns()
    story.check("outcome", found[turn], "replied")
    story.check("sent_again_before_and_after", [again.turn_id, twice.turn_id], [turn, turn])
    story.check("turns", len(rows), 1)
    story.check("payments", agent.done(), 1)
    story.check("model_calls_of_the_next_gateway", agent.asked, 1)
    story.check("replies", [list(each.replies) for each in facts.exchanges], [["It is paid"]])
    story.check("arrived_at_the_user", _texts(receiver), ["It is paid"])
    story.check("requests_under_one_key", len({each.key for each in receiver.received}), 1)
    return story.saw()


def _payment() -> Mapping[str, Any]:
    return {"key": KEY, "text": "pay", "target": "crm:ann", "idempotency_key": "message 1"}


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-restarted-in-mid-delivery",
        ("hermes-agent#92589", "hermes-agent#95369"),
        "A restart did not count a reply that was on its way as work: it was cut off there and"
        " delivered again, as a reply that may be a duplicate; and `continue` had the model"
        " say the end of a finished reply once more.",
        "A restart waits for what is on its way; after a kill it is sent again under the same"
        " key with the same bytes, and said to be; no model is asked for it.",
        restart_in_mid_delivery,
    ),
    Scenario(
        "incident-said-and-done-twice",
        ("openclaw#149430", "openclaw#29106", "openclaw#121507", "openclaw#96242"),
        "A provider's failure, or a restart, ran the whole turn again: tools did again what"
        " they had done, and the user read the reply twice.",
        "What was done is durable before it is done and is not done again; a message that is"
        " sent again is the one that was accepted; one part has one key.",
        said_and_done_twice,
    ),
)

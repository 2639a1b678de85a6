"""Incidents: replies that were finished, or shown, and are not there."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any, Final

from holdfast.lab.oracle import read
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
    open_,
    outcomes,
)
from holdfast.lab.scenarios._players import Mailbox

if TYPE_CHECKING:
    from holdfast._runtime.runtime import Holdfast
    from holdfast.lab.scenarios import Saw

__all__ = ["SCENARIOS"]

# ------------------------------------------------------------------- somebody else wrote


async def foreign_write(state: str) -> Saw:
    """While a person's reply streams: a mirror, a stranger, a backup, a heartbeat, a job."""
    story, agent = Story(), Echo(slow="long")
    async with Hands() as hands, open_(state, agent=agent, settings=QUICK) as hf:
        asked = await hf.submit(KEY, "a long question", source="telegram")
        await agent.began.wait()
        story("a person's reply streams; its first token is out")
        path = hf.store.transcripts.path(await hf.session(KEY))
        hands.start("mirror", "appends", path=str(path), line=_line(str(path), "mirrored"))
        await hands.ended("mirror")
        story("another process mirrors a delivery into the transcript, under its lock")
        _scribble(str(path))
        os.chmod(path, 0o640)
        os.utime(path, (1, 1))
        story("a program that knows no lock scribbles a line; a backup touches the file")
        later = [await hf.submit(KEY, f"a {lane}", lane=lane) for lane in ("heartbeat", "cron")]
        story(f"a heartbeat and a job come, and stand at {[each.position for each in later]}")
        agent.go.set()
        found = await outcomes(hf, [each.turn_id for each in (asked, *later)])
        facts = await facts_of(hf)
        takeovers = await hf.store.control.events(kinds=["requeue"])
        story.check("reply", found[asked.turn_id], "replied")
        story.check("heartbeat_and_job", [found[e.turn_id] for e in later], ["replied"] * 2)
        story.check("model_calls_for_it", agent.count("long"), 1)
        story.check("takeovers", len(takeovers), 0)
        story.check("seen_by_the_next", facts.seen, 3)
        story.check("written_meanwhile_and_still_there", _noted(str(path)), 2)
        story.check("problems", list(facts.problems), [])
    return story.saw()


def _line(path: str, text: str) -> str:
    """An entry after the last one, as programs without any coordination make it."""
    with open(path, "rb") as file:
        last = json.loads(file.read().splitlines()[-1])
    entry = {
        "type": "custom", "customType": "note", "id": os.urandom(4).hex(), "data": text,
        "parentId": last["id"], "timestamp": "2026-05-30T08:00:00.000Z",
    }  # fmt: skip
    return json.dumps(entry)


def _scribble(path: str) -> None:
    with open(path, "ab") as file:
        file.write(_line(path, "scribbled").encode() + b"\n")


def _noted(path: str) -> int:
    with open(path, "rb") as file:
        return sum(json.loads(line).get("customType") == "note" for line in file)


# --------------------------------------------------------------------- shown, never kept

#: Where a gateway dies: its reply is not written, written, committed, being sent, sent.
DEATHS: Final = (
    ("append.checked", 2), ("append.written", 2), ("commit.appended", 1),
    ("delivery.taken", 1), ("delivery.tried", 1),
)  # fmt: skip


async def shown_but_not_kept(state: str) -> Saw:
    """A gateway is killed at each step between a finished reply and its arrival."""
    story = Story()
    async with Hands() as hands:
        for point, hit in DEATHS:
            home = _home(state, point)
            says = [{"key": KEY, "text": "question", "target": "mailbox:ann"}]
            hands.start(
                point, "runs", state=home, at=(point, hit), mailbox=f"{home}.mailbox",
                says=says, settings=QUICK,
            )  # fmt: skip
        for point, _ in DEATHS:
            await hands.heard(point, "ready")
            hands.order("go", point)
            turn = (await hands.heard(point, "accepted"))["turn"]
            assert await hands.ended(point) < 0, "it was to die"
            await _after_death(story, point, _home(state, point), turn)
    return story.saw()


def _home(state: str, point: str) -> str:
    return os.path.join(state, point.replace(".", "-"))


async def _after_death(story: Story, point: str, home: str, turn: str) -> None:
    box, agent = Mailbox(home, f"{home}.mailbox"), Echo()
    shown = len(box.arrived())
    story(f"killed at {point}; the user has been shown {shown} replies")
    async with open_(home, agent=agent, channels=[box], settings=QUICK) as hf:
        told = await outcomes(hf, [turn])
        await followed(hf, turn)
        facts = await facts_of(hf)
    arrived = box.arrived()
    name = point.replace(".", "_")
    story.check(f"{name}_outcome", told[turn], "replied")
    story.check(f"{name}_replies", [each.replies for each in facts.exchanges],
                [("reply to: question",)])  # fmt: skip
    story.check(f"{name}_keys_that_arrived", len({each["key"] for each in arrived}), 1)
    story.check(f"{name}_shown_before_it_was_kept", sum(not e["kept"] for e in arrived), 0)
    asked_again = point.startswith("append.checked")
    story.check(f"{name}_asked_again", len(agent.asked), int(asked_again))


# ---------------------------------------------------------------------- silence (cluster)

LANES: Final = ("user", "cron", "heartbeat", "subagent")
SESSIONS: Final = ("main", "family", "work")


async def lost_silently(state: str) -> Saw:
    """A gateway is killed in its first model calls; and one provider will never answer."""
    story, agent = Story(), Echo(fails="wrong key")
    messages: list[dict[str, Any]] = [
        {"key": f"agent:main:{session}", "text": f"{session} {lane}", "lane": lane}
        for session in SESSIONS
        for lane in LANES
    ]
    messages += [{"key": KEY, "text": "with the wrong key"}]
    async with Hands() as hands:
        hands.start("gateway", "runs", state=state, says=messages, slow="", settings=QUICK)
        await hands.heard("gateway", "ready")
        hands.order("go", "gateway")
        turns = [(await hands.heard("gateway", "accepted"))["turn"] for _ in messages]
        await hands.heard("gateway", "streaming")
        await hands.killed("gateway")
        story(f"{len(turns)} messages accepted; the gateway is killed in its first model calls")
    async with open_(state, agent=agent, settings=QUICK) as hf:
        found = await outcomes(hf, turns)
        story.check("outcomes", count(found.values()), {"failed": 1, "replied": 12})
        story.check("without_an_outcome", list(found.values()).count(NOTHING), 0)
        failed = await hf.store.control.turn(turns[-1])
        story.check("said_of_the_failure", [failed.reason, bool(failed.hint)],
                    ["auth", True])  # fmt: skip
        stand = await _questions(hf)
        story.check("questions_that_stand_once", len([q for q in stand if stand[q] == 1]), 13)
        facts = [await facts_of(hf, f"agent:main:{session}") for session in SESSIONS]
        story.check("replies_that_the_next_turn_sees", sum(each.seen for each in facts), 12)
    return story.saw()


async def _questions(hf: Holdfast) -> dict[str, int]:
    """How often each question stands in a transcript."""
    texts = list[str]()
    for session in SESSIONS:
        path = str(hf.store.transcripts.path(await hf.session(f"agent:main:{session}")))
        facts = await asyncio.to_thread(read, path)
        texts += [exchange.text for exchange in facts.exchanges]
    return count(texts)


SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "incident-somebody-wrote-meanwhile",
        ("openclaw#84059", "openclaw#87183", "openclaw#86508", "openclaw#86845"),
        "The lock was given back for the model call, another lane wrote, and the file's"
        " fingerprint was another: the finished reply was dropped; 68 times in one install,"
        " and 13 jobs in 42 hours.",
        "Whatever was appended meanwhile stays, and the reply goes after it; who else wants"
        " the session waits for its turn.",
        foreign_write,
    ),
    Scenario(
        "incident-shown-but-not-kept",
        ("openclaw#134498",),
        "The user was shown a reply, and the transcript never had it.",
        "A reply is sent after its commit, wherever the gateway is killed, and what was"
        " committed and not sent is sent by the next one.",
        shown_but_not_kept,
    ),
    Scenario(
        "incident-lost-without-a-word",
        ("openclaw#84059", "openclaw#127736", "openclaw#93625", "openclaw#85913"),
        "Replies, and the user's own messages, were gone without anybody being told; a"
        " gateway that died in its first model call had never written the question.",
        "Who was told `accepted` is told an outcome, and every question stands once.",
        lost_silently,
    ),
)

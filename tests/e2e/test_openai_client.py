"""The official client, unmodified: many lanes on one session, and answers that get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from holdfast.testing import ModelServer
from support import oracle
from support.dropping import DroppingProxy
from support.serving import Served

LANES = ("user", "subagent", "cron", "heartbeat")
MESSAGES = 25
SESSION = "agent:main:shared"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with ModelServer() as model:
        env = {
            "OPENAI_BASE_URL": model.base_url,
            "OPENAI_API_KEY": "sk-none",
            "HOLDFAST_TURN__HEARTBEATS_YIELD": "false",  # All are answered.
        }
        with Served(tmp_path / "s", "--model", "openai-chat:any", env=env) as server:
            yield server


def headers(lane: str, text: str | None = None) -> dict[str, str]:
    told = {"X-Holdfast-Session": SESSION, "X-Holdfast-Lane": lane}
    return told if text is None else {**told, "Idempotency-Key": text}


async def streamed(client: openai.AsyncOpenAI, lane: str, text: str, *, key: bool) -> str:
    stream = await client.chat.completions.create(
        model="main",
        messages=[{"role": "user", "content": text}],
        stream=True,
        extra_headers=headers(lane, text if key else None),
    )
    said = ""
    async with stream:
        async for chunk in stream:
            if chunk.choices:
                said += chunk.choices[0].delta.content or ""
    return said


def check_session(served: Served, accepted: int) -> None:
    """One turn a message, each answered once, and the transcript is whole."""
    with served.client() as http:
        assert http.get(f"/v1/sessions/{SESSION}").json()["turns"] == accepted
        metrics = http.get("/metrics").text
    counted = sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("holdfast_accepted_total{")
    )
    assert counted == accepted
    entries = oracle.read(oracle.only_transcript(served.state))
    oracle.check_whole(entries)
    answers = oracle.check_answers(entries)
    assert len(answers) == accepted
    assert all(reply == f"reply to: {question}" for question, reply in answers.items())


def test_four_lanes_stream_a_hundred_messages_into_one_session(served: Served) -> None:
    async def lane(client: openai.AsyncOpenAI, name: str) -> None:
        async def one(text: str) -> None:
            assert await streamed(client, name, text, key=False) == f"reply to: {text}"

        async with asyncio.TaskGroup() as group:
            for number in range(MESSAGES):
                group.create_task(one(f"{name} {number}"))

    async def all_lanes() -> None:
        async with (
            openai.AsyncOpenAI(
                base_url=f"{served.url}/v1", api_key=served.token, max_retries=0, timeout=120
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for name in LANES:
                group.create_task(lane(client, name))

    asyncio.run(all_lanes())
    check_session(served, len(LANES) * MESSAGES)


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "plain"])
def test_lost_answers_are_asked_for_again_and_stay_one_turn(
    served: Served, stream: bool
) -> None:
    """The client's own two retries, through a proxy that loses every tenth response."""

    async def one(client: openai.AsyncOpenAI, lane: str, text: str) -> None:
        if stream:
            said: str | None = await streamed(client, lane, text, key=True)
        else:
            answer = await client.chat.completions.create(
                model="main",
                messages=[{"role": "user", "content": text}],
                extra_headers=headers(lane, text),
            )
            said = answer.choices[0].message.content
        assert said == f"reply to: {text}"

    async def all_lanes(url: str) -> None:
        async with (
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=served.token) as client,
            asyncio.TaskGroup() as group,
        ):
            for lane in LANES:
                for number in range(10):
                    group.create_task(one(client, lane, f"{lane} {number}"))

    with DroppingProxy(served.url) as proxy:
        asyncio.run(all_lanes(proxy.url))
    assert proxy.dropped >= 4
    assert proxy.requests == 40 + proxy.dropped
    check_session(served, 40)

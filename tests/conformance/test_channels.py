"""The webhook keeps every promise that the deliverer relies on."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast.channels.webhook import Webhook
from holdfast.ports import Channel
from holdfast.testing import channels
from holdfast.testing.receiver import Answer, Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ANSWERS = {
    "good": Answer(),
    "refuses": Answer(410),
    "busy": Answer(429, retry_after="7"),
    "silent": Answer(late=True),
    "down": Answer(),
}


@asynccontextmanager
async def rig(how: str) -> AsyncIterator[channels.Bench]:
    answer = Answer(**{**vars_of(ANSWERS[how]), "repeat": True})
    with Receiver([answer], secret=SECRET) as receiver:
        url = receiver.url if how != "down" else f"http://127.0.0.1:{free_port()}/"
        channel = Webhook("crm", url, [SECRET], part_chars=2000, timeout_s=3.0)
        assert isinstance(channel, Channel)
        yield channels.Bench(channel, lambda: list(receiver.processed))
        await channel.aclose()
        assert all(each.signed for each in receiver.received)


def vars_of(answer: Answer) -> dict[str, Any]:
    return {name: getattr(answer, name) for name in Answer.__dataclass_fields__}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("clause", channels.CLAUSES, ids=channels.name)
async def test_webhook(clause: Any) -> None:
    await clause(rig)

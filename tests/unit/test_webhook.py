"""What a webhook sends, and what each answer means."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from holdfast._core.delivery import PERMANENT, TRANSIENT
from holdfast.channels.webhook import Webhook
from holdfast.errors import DeliveryError
from holdfast.testing.channels import parcel
from holdfast.testing.receiver import Answer, Receiver, read_answers

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def sent(*answers: Answer) -> Receiver:
    with Receiver(answers, secret=SECRET) as receiver:
        channel = Webhook("crm", receiver.url, [SECRET], timeout_s=5)
        try:
            await channel.deliver(parcel("what it says"))
        finally:
            await channel.aclose()
        return receiver


async def test_the_body_says_whose_and_which_part_it_is() -> None:
    receiver = await sent()
    [received] = receiver.received
    assert received.signed
    assert received.told["text"] == "what it says"
    assert received.key == f"{received.told['turn_id']}.1"


@pytest.mark.parametrize("status", [200, 201, 204, 299, 409])
async def test_it_has_arrived(status: int) -> None:
    await sent(Answer(status))


@pytest.mark.parametrize("status", [300, 301, 307, 400, 401, 403, 404, 405, 410, 413, 415, 422])
async def test_no_later_attempt_would_do(status: int) -> None:
    with pytest.raises(DeliveryError) as caught:
        await sent(Answer(status))
    assert caught.value.permanent
    assert caught.value.landed is False
    assert caught.value.reason in PERMANENT


@pytest.mark.parametrize("status", [402, 408, 418, 425, 429, 500, 502, 503, 504, 599])
async def test_a_later_attempt_may_do(status: int) -> None:
    with pytest.raises(DeliveryError) as caught:
        await sent(Answer(status))
    assert not caught.value.permanent
    assert caught.value.landed is False
    assert caught.value.reason in TRANSIENT


@pytest.mark.parametrize("drop", ["before", "after"])
async def test_a_connection_that_breaks_leaves_nobody_knowing(drop: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        await sent(Answer(drop=drop))  # type: ignore[arg-type]
    assert (caught.value.landed, caught.value.reason) == (None, "unanswered")


LATER = "a date, ten minutes from now"


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("-3", 0, 0),
        ("999999999", 3600, 3600),
        (LATER, 500, 600),
        ("Wed, 21 Oct 2015 07:28:00", 0, 0),
    ],
)
async def test_patience_is_heard_and_bounded(told: str, least: float, most: float) -> None:
    if told == LATER:
        told = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    with pytest.raises(DeliveryError) as caught:
        await sent(Answer(503, retry_after=told))
    assert caught.value.retry_after_s is not None
    assert least <= caught.value.retry_after_s <= most


@pytest.mark.parametrize("told", ["soon", "nan", "", f"Mon, 01 Jan 2024 00:00:00 +{'9' * 20}"])
async def test_what_nobody_can_read_asks_for_nothing(told: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        await sent(Answer(503, retry_after=told))
    assert caught.value.retry_after_s is None


async def test_nothing_that_it_says_of_a_failure_holds_its_url() -> None:
    for url in ("http://127.0.0.1:9/secret-path", "http://[::bad/secret-path"):
        channel = Webhook("crm", url, [SECRET], timeout_s=1)
        with pytest.raises(DeliveryError) as caught:
            await channel.deliver(parcel())
        assert "secret-path" not in json.dumps(caught.value.to_json())
        await channel.aclose()


async def test_no_log_line_holds_its_url(caplog: pytest.LogCaptureFixture) -> None:
    with Receiver() as receiver, caplog.at_level(logging.INFO):
        channel = Webhook("crm", f"{receiver.url}?token=secret-path", [SECRET])
        await channel.deliver(parcel())
        await channel.aclose()
        assert "secret-path" not in caplog.text
        async with httpx2.AsyncClient() as client:  # What others ask for is logged as ever.
            await client.post(f"{receiver.url}?others", content=b"{}")
        assert "others" in caplog.text


def test_a_script_says_which_line_is_wrong() -> None:
    assert read_answers('{"status": 500}\n\n{"drop": "after", "repeat": true}') == [
        Answer(500), Answer(drop="after", repeat=True),
    ]  # fmt: skip
    for bad in ('{"stat": 1}', "nonsense", "[]"):
        with pytest.raises(ValueError, match="line 2"):
            read_answers(f"{{}}\n{bad}")

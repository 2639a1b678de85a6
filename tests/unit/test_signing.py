"""Signed webhooks: the published vector, what is good, and whatever is not."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.channels.signing import WINDOW_S, BadSignatureError, sign, verify

# Published with the Standard Webhooks specification and used by its libraries' own tests.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE, AT, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

OTHER = "whsec_" + "QUFB" * 8
GOOD = {
    "webhook-id": MESSAGE, "webhook-timestamp": str(AT), "webhook-signature": SIGNATURE
}  # fmt: skip


def test_the_published_vector() -> None:
    assert sign([SECRET], MESSAGE, AT, BODY) == GOOD
    assert verify([SECRET], GOOD, BODY, AT) == MESSAGE


def test_while_a_secret_is_replaced_both_are_good() -> None:
    signed = sign([OTHER, SECRET], MESSAGE, AT, BODY)
    assert signed["webhook-signature"].split(" ")[1] == SIGNATURE
    for known in ([SECRET], [OTHER], [OTHER, SECRET]):
        assert verify(known, signed, BODY, AT) == MESSAGE
    assert verify([OTHER, SECRET], GOOD, BODY, AT) == MESSAGE


@pytest.mark.parametrize("away_s", [-WINDOW_S, 0, WINDOW_S])
def test_within_five_minutes_it_is_good(away_s: int) -> None:
    assert verify([SECRET], GOOD, BODY, AT + away_s) == MESSAGE


@pytest.mark.parametrize(
    ("changes", "body", "away_s"),
    [
        ({}, BODY + b" ", 0),
        ({}, BODY, WINDOW_S + 1),
        ({}, BODY, -WINDOW_S - 1),
        ({"webhook-id": "another"}, BODY, 0),
        ({"webhook-id": ""}, BODY, 0),
        ({"webhook-id": "x" * 1000}, BODY, 0),
        ({"webhook-timestamp": str(AT + 1)}, BODY, 0),
        ({"webhook-timestamp": "now"}, BODY, 0),
        ({"webhook-timestamp": "١٢٣"}, BODY, 0),
        ({"webhook-signature": ""}, BODY, 0),
        ({"webhook-signature": SIGNATURE.replace("v1", "v2")}, BODY, 0),
        ({"webhook-signature": "v1," + "A" * 44}, BODY, 0),
        ({"webhook-signature": "v1,é"}, BODY, 0),
        ({"webhook-signature": " ".join(["v1,x"] * 8 + [SIGNATURE])}, BODY, 0),
    ],
)  # fmt: skip
def test_whatever_else_is_refused(changes: Any, body: bytes, away_s: int) -> None:
    with pytest.raises(BadSignatureError):
        verify([SECRET], {**GOOD, **changes}, body, AT + away_s)


def test_another_secret_is_refused() -> None:
    with pytest.raises(BadSignatureError):
        verify([OTHER], GOOD, BODY, AT)

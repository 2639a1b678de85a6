"""
Signed webhooks by the Standard Webhooks scheme, both ways.

    webhook-id          the message's stable id: a receiver that has seen it has had the message
    webhook-timestamp   when this attempt was made, in seconds since 1970
    webhook-signature   `v1,` and base64(HMAC-SHA256(secret, "<id>.<timestamp>.<body>"));
                        several, with spaces between, while a secret is being replaced

Secrets are written `whsec_` and base64.  Two may be good at once: what is sent is signed with
both, and what comes is good if one of them has signed it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from holdfast.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["WINDOW_S", "BadSignatureError", "key_of", "sign", "verify"]

PREFIX: Final = "whsec_"
WINDOW_S: Final = 300  #: How far a timestamp may be from our clock, either way.
ID_CHARS_MAX: Final = 180
SIGNATURES_MAX: Final = 8


@dataclass(kw_only=True, eq=False)
class BadSignatureError(InputError):
    """A webhook is not signed by whom it should be, or not now.  Nothing was accepted."""

    code: ClassVar[str] = "bad_signature"
    status: ClassVar[int] = 401

    detail: str
    hint: str = "sign <id>.<timestamp>.<body> with the channel's secret, by a right clock"

    def __str__(self) -> str:
        return f"not a webhook of this channel: {self.detail}"


def key_of(secret: str) -> bytes:
    """
    The key that a secret stands for.

    Raises:
        ValueError: it is not `whsec_` and base64.
    """
    if not secret.startswith(PREFIX):
        raise ValueError("a signing secret begins with whsec_")
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a signing secret is whsec_ and base64") from error


def sign(
    secrets: Iterable[str], message_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """The three headers of *body*, signed with each of *secrets*."""
    each = [_signature(key_of(secret), message_id, timestamp_s, body) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in each),
    }


def verify(
    secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now_s: float
) -> str:
    """
    Check who sent *body*, and when.

    Args:
        secrets: any of which may have signed it.
        headers: by lower-case name.

    Returns:
        The message's id.

    Raises:
        BadSignatureError: it is not signed, or not by these secrets, or not within WINDOW_S.
    """
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    given = headers.get("webhook-signature", "")
    if not (0 < len(message_id) <= ID_CHARS_MAX and message_id.isprintable()):
        raise BadSignatureError(detail="webhook-id is missing or too long")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 12):
        raise BadSignatureError(detail="webhook-timestamp is not a number of seconds")
    known = [_signature(key_of(secret), message_id, int(timestamp), body) for secret in secrets]
    good = False
    for each in given.split(" ")[:SIGNATURES_MAX]:
        version, _, signature = each.partition(",")
        for one in known:  # All of them, every time: how long it takes tells nothing.
            good |= hmac.compare_digest(signature.encode(), one.encode()) and version == "v1"
    if not good:
        raise BadSignatureError(detail="no signature of it is ours")
    if abs(now_s - int(timestamp)) > WINDOW_S:
        raise BadSignatureError(detail=f"its timestamp is more than {WINDOW_S} s away")
    return message_id


def _signature(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()

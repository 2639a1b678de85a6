"""`/openapi.json`: messages from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.gateway._openapi_words import ALWAYS, STORE, as_json, operation, parameter

if TYPE_CHECKING:
    from holdfast.gateway._openapi_words import Json

__all__ = ["hooks"]


def hooks() -> Json:
    signed = [
        parameter("path", "channel", "Its name in the settings, channels.<name>."),
        parameter("header", "webhook-id", "The message's stable id: its idempotency key."),
        parameter("header", "webhook-timestamp", "Now, in seconds since 1970."),
        parameter(
            "header",
            "webhook-signature",
            "`v1,` and base64(HMAC-SHA256(secret, `<id>.<timestamp>.<body>`)).",
        ),
    ]
    return {
        "/v1/hooks/{channel}": {
            "post": operation(
                "receiveWebhook",
                "Hand in a message, signed by the Standard Webhooks scheme",
                signed,
                {
                    "202": as_json(
                        "Receipt", "Accepted: durable, and it will end in one outcome."
                    )
                },
                (401, *ALWAYS, 404, 408, 409, 413, 422, 429, *STORE),
                body="Incoming",
                public=True,
            )
        }
    }

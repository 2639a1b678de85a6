"""
Messages from outside: `POST /v1/hooks/{channel}`, signed by the Standard Webhooks scheme.

    known channel ─▶ bounded body ─▶ signature, timestamp ─▶ form, sender ─▶ accepted

No bearer token: who can sign is who may send.  Nothing of a body is looked at before its
signature is good.  The sender's `webhook-id` is the idempotency key: what is sent again gets
the earlier receipt.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec
from starlette.responses import JSONResponse

from holdfast._core import keys
from holdfast._core.addressing import session_key
from holdfast.channels.configured import secrets_of
from holdfast.channels.signing import verify
from holdfast.errors import InputError, NotFoundError
from holdfast.gateway import bodies
from holdfast.gateway.messages import receipt_json
from holdfast.gateway.problems import BadFieldError

if TYPE_CHECKING:
    from starlette.requests import Request

    from holdfast._core.settings import ChannelSettings, Settings
    from holdfast.gateway.app import Gateway

__all__ = ["SenderRefusedError", "receive"]


@dataclass(kw_only=True, eq=False)
class SenderRefusedError(InputError):
    """The channel does not take messages of this sender."""

    code: ClassVar[str] = "sender_refused"
    status: ClassVar[int] = 403

    sender: str | None
    hint: str = "name them in channels.<name>.senders if they may send"

    def __str__(self) -> str:
        return f"sender {self.sender!r} may not send here"


class Incoming(msgspec.Struct, forbid_unknown_fields=True):
    """The body."""

    text: str
    key: str | None = None  #: The session; or `peer` says whom it is with.
    peer: str | None = None
    chat: Literal["direct", "group", "channel", "room"] = "direct"
    thread: str | None = None
    sender: str | None = None
    reply_to: str | None = None  #: Where the reply goes; else to the peer, else the sender.


async def receive(request: Request) -> JSONResponse:
    """
    Take a message in.

    Returns:
        202 and a receipt.
    """
    gateway: Gateway = request.app.state.gateway
    name = request.path_params["channel"]
    told = gateway.settings.channels.get(name)
    if told is None:
        raise NotFoundError(what="channel", name=name[:80])
    body = await bodies.read(request, gateway.settings.body_bytes_max)
    message_id = verify(secrets_of(name, told), request.headers, body, time.time())
    message = bodies.decode(body, Incoming)
    if told.senders and message.sender not in told.senders:
        raise SenderRefusedError(sender=None if message.sender is None else message.sender[:80])
    address = message.reply_to or message.peer or message.sender or ""
    receipt = await gateway.hf.submit(
        _key(message, name, told, gateway.settings),
        message.text,
        source="channel",
        sender=message.sender or message.peer,
        idempotency_key=f"{name}:{message_id}",
        target=None if told.url is None else f"{name}:{address}",
    )
    return JSONResponse(receipt_json(receipt), 202)


def _key(message: Incoming, name: str, told: ChannelSettings, settings: Settings) -> str:
    """
    Which session it is for.

    Raises:
        BadFieldError: two are named, or one of an agent that the channel does not speak to.
        BadKeyError: it is none.
    """
    if message.peer is not None:
        if message.key is not None:
            raise BadFieldError(name="peer", detail="not together with key")
        return session_key(
            channel=name,
            peer=message.peer,
            kind=message.chat,
            thread=message.thread,
            agent=told.agent,
            dm_scope=settings.dm_scope,
            identities={person: who.peers for person, who in settings.identities.items()},
        )
    if message.thread is not None:
        raise BadFieldError(name="thread", detail="only together with peer")
    if message.key is None:
        return told.session or f"agent:{told.agent}:main"
    key = keys.canonical(message.key)
    if keys.agent_of(key) != told.agent:
        raise BadFieldError(name="key", detail=f"this channel speaks to agent {told.agent}")
    return key

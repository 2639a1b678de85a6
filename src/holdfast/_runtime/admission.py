"""From a caller's words to an admission: everything that can be checked without a store."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast._core import keys
from holdfast._stamps import uuid7
from holdfast.errors import BadRequestError, TooLargeError
from holdfast.types import Admission, TurnId

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast._core.settings import Settings
    from holdfast.types import OwnerId

__all__ = ["SOURCE_CHARS_MAX", "asked"]

SOURCE_CHARS_MAX: Final = 64


def asked(
    settings: Settings,
    key: str,
    text: str,
    *,
    lane: str,
    source: str,
    policy: str | None,
    idempotency_key: str | None,
    model: str | None,
    bound: bool,
    home: Callable[[str], OwnerId | None],
    instructions: str | None = None,
    seed: Sequence[Mapping[str, str]] = (),
) -> Admission:
    """
    A checked admission with a fresh turn id.

    Args:
        home: which process an agent's turn should run in, if any in particular.
        instructions, seed: see `Holdfast.submit`; they count into the message's size.

    Raises:
        InputError: names what is wrong.  Nothing was accepted.
    """
    key = keys.canonical(key)
    agent_id = keys.agent_of(key)
    _check(text, source, idempotency_key)
    seeded = _seed(seed)
    size = sum(_size(each) for each in (text, instructions or "")) + len(seeded or b"")
    if size > settings.message_bytes_max:
        raise TooLargeError(what="a message", size=size, limit=settings.message_bytes_max)
    return Admission(
        turn_id=TurnId(uuid7()),
        session_key=key,
        agent_id=agent_id,
        text=text,
        lane=lane,
        source=source,
        priority=settings.lane(lane).priority,
        policy=settings.checked_policy(policy),
        queue_max=settings.queue_max,
        model=model,
        idempotency_key=idempotency_key,
        request_hash=hashlib.sha256(text.encode()).hexdigest(),
        home=home(agent_id),
        bound=bound,
        instructions=instructions,
        seed=seeded,
    )


def _seed(messages: Sequence[Mapping[str, str]]) -> bytes | None:
    """Earlier messages as a turn's row keeps them; None if there are none."""
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant") or not isinstance(content, str):
            raise BadRequestError(
                detail="an earlier message has a role, user or assistant, and a text as content"
            )
        _size(content)
    return msgspec.json.encode(list(messages)) if messages else None


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise BadRequestError(
            detail="the text is not valid Unicode (a lone surrogate)"
        ) from error


def _check(text: str, source: str, idempotency_key: str | None) -> None:
    _size(text)
    if not text.strip():
        raise BadRequestError(detail="the text is empty")
    if not source or len(source) > SOURCE_CHARS_MAX or not source.isprintable():
        raise BadRequestError(detail=f"the source must be 1 to {SOURCE_CHARS_MAX} characters")
    if idempotency_key is not None and not 0 < len(idempotency_key) <= keys.KEY_CHARS_MAX:
        raise BadRequestError(
            detail=f"an idempotency key has 1 to {keys.KEY_CHARS_MAX} characters"
        )

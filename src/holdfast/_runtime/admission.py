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
SENDER_CHARS_MAX: Final = 255
_MERGING: Final = frozenset({"collect", "steer"})


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
    sender: str | None = None,
    target: str | None = None,
    part_chars: int | None = None,
    parent: str | None = None,
    awaited: bool = False,
) -> Admission:
    """
    A checked admission with a fresh turn id.

    Args:
        part_chars: the longest part that *target* takes.
        home: which process an agent's turn should run in, if any in particular.
        instructions, seed: see `Holdfast.submit`; they count into the message's size.
        awaited: *parent* will wait for this turn's end.

    Raises:
        InputError: names what is wrong.  Nothing was accepted.
    """
    key = keys.canonical(key)
    agent_id = keys.agent_of(key)
    _check(text, source, idempotency_key)
    _check_sender(sender)
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
        policy=_policy(settings, policy, lane, bound=bound),
        queue_max=settings.queue_max,
        model=model,
        idempotency_key=idempotency_key,
        request_hash=hashlib.sha256(text.encode()).hexdigest(),
        home=home(agent_id),
        bound=bound,
        instructions=instructions,
        seed=seeded,
        sender=sender,
        target=target,
        part_chars=part_chars,
        parent=None if parent is None else TurnId(parent),
        awaited=awaited,
        quiet_ms=settings.collect_quiet_ms,
        collect_max=settings.collect_max,
        preempts=settings.heartbeats_yield,
    )


def _policy(settings: Settings, named: str | None, lane: str, *, bound: bool) -> str:
    """What a busy session is answered with; a turn of one's own loop cannot be merged."""
    policy = settings.checked_policy(named, lane)
    if not bound or policy not in _MERGING:
        return policy
    if named is None:
        return "enqueue"
    raise BadRequestError(
        detail=f"policy {policy} merges the message into another turn, and hf.turn is its own",
        hint="use submit, or another policy",
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


def _check_sender(sender: str | None) -> None:
    if sender is not None and (
        not 0 < len(sender) <= SENDER_CHARS_MAX or not sender.isprintable()
    ):
        raise BadRequestError(detail=f"a sender has 1 to {SENDER_CHARS_MAX} characters")


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

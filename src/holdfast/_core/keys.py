"""
Session keys: what may address a conversation, and its one canonical spelling.

    agent:<id>:<rest…>      <id> = [a-z0-9][a-z0-9_-]{0,63}; <rest> = one or more words
    hook:<uuid>             a webhook's own conversation
    main                    alias of agent:main:main

Words are separated by colons.  Keys are lower-cased, except where a channel's own ids are
case-sensitive: what follows `room:` or `channel:` of Matrix, and `group:` of Signal.
A key never becomes a path, but it may become part of a URL, a log line and a shell command,
so separators, control characters and white space are refused at the door.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from holdfast.errors import BadKeyError

__all__ = ["AGENT_DEFAULT", "ALIASES", "KEY_CHARS_MAX", "OPAQUE", "agent_of", "canonical"]

KEY_CHARS_MAX: Final = 255
AGENT_DEFAULT: Final = "main"
ALIASES: Final = {"main": "agent:main:main"}

_AGENT_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OPAQUE: Final = (("matrix", "room"), ("matrix", "channel"), ("signal", "group"))
_FORBIDDEN: Final = frozenset("/\\\x7f")


@lru_cache(1024)
def canonical(key: str) -> str:
    """
    The one spelling of *key*.

    Raises:
        BadKeyError: not a session key; says what is wrong with it.
    """
    _check_characters(key)
    key = unicodedata.normalize("NFC", key)
    key = ALIASES.get(key.lower(), key)
    head, *words = key.split(":")
    match head.lower():
        case "agent":
            return _agent_key(key, words)
        case "hook" if len(words) == 1 and _UUID.fullmatch(words[0].lower()):
            return f"hook:{words[0].lower()}"
        case "hook":
            raise _bad(key, "after hook: comes exactly one UUID")
    raise _bad(key, "it starts with neither agent: nor hook:")


def agent_of(key: str) -> str:
    """The agent that a canonical *key* belongs to."""
    head, _, rest = key.partition(":")
    return rest.partition(":")[0] if head == "agent" else AGENT_DEFAULT


def _check_characters(key: str) -> None:
    if not key:
        raise _bad(key, "it is empty")
    if len(key) > KEY_CHARS_MAX:
        raise _bad(key, f"{len(key)} characters, at most {KEY_CHARS_MAX} are allowed")
    for char in key:
        if char in _FORBIDDEN or char.isspace() or unicodedata.category(char)[0] == "C":
            raise _bad(key, f"the character {char!r} is not allowed")


def _agent_key(key: str, words: list[str]) -> str:
    if len(words) < 2 or not all(words):
        raise _bad(key, "after agent: come an id and at least one more word, none empty")
    agent_id = words[0].lower()
    if not _AGENT_ID.fullmatch(agent_id):
        raise _bad(key, f"{words[0]!r} is not an agent id")
    kept = [word.lower() for word in words[1:]]
    for channel, kind in OPAQUE:
        if kept[0] == channel and kind in kept[1:-1]:
            start = kept.index(kind, 1) + 1
            kept[start:] = words[1 + start :]
    return ":".join(["agent", agent_id, *kept])


def _bad(key: str, detail: str) -> BadKeyError:
    return BadKeyError(key=key[:80], detail=detail)

"""
From what a channel knows about a message to the key of its conversation, and back.

    agent:<id>:main                                   dm_scope main: all direct messages
    agent:<id>:direct:<peer>                          per-peer
    agent:<id>:<channel>:direct:<peer>                per-channel-peer
    agent:<id>:<channel>:<account>:direct:<peer>      per-account-channel-peer
    agent:<id>:<channel>:group|channel|room:<peer>    several people; the scope is not asked
    <any of these>:thread:<tid> · :topic:<tid>        a thread of it is a conversation too
    <any of these>:heartbeat                          its isolated heartbeat: one suffix

Rules
-----
1. Different facts give different keys.  Ids come from outside, so what would read as another
   part of a key (`thread`, a colon at an end, `%`, …) is percent-encoded: whoever calls himself
   `ann:thread:7` does not get into Ann's thread.
2. Ids are lower-cased as keys are, but for the opaque ones: see `keys`.
3. What a key says can be read again: `read(session_key(…))` gives the facts that the key keeps.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from holdfast._core import keys
from holdfast.errors import BadKeyError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["KINDS", "Address", "address_key", "heartbeat_of", "read", "session_key"]

DIRECT: Final = "direct"
KINDS: Final = (DIRECT, "group", "channel", "room")
ACCOUNT_DEFAULT: Final = "default"
HEARTBEAT: Final = "heartbeat"

_MAIN: Final = "main"
_THREADS: Final = ("thread", "topic")
#: Words that mean something in a key; as somebody's id they are encoded.
_RESERVED: Final = frozenset(
    {*KINDS, *_THREADS, HEARTBEAT, _MAIN, "cron", "subagent", "acp", "run"}
)
_ENCODED: Final = frozenset("%/\\")
_ESCAPES: Final = re.compile("(?:%[0-9a-f]{2})+")


@dataclass(frozen=True, slots=True)
class Address:
    """What a key says of a conversation; None: it does not say."""

    agent: str = keys.AGENT_DEFAULT
    channel: str | None = None
    account: str | None = None
    kind: str | None = None  #: One of KINDS; None: the agent's main conversation.
    peer: str | None = None  #: Whom or what: a person's id, a group's, a room's.
    thread: str | None = None
    topic: str | None = None
    heartbeat: bool = False


def session_key(
    *,
    channel: str,
    peer: str,
    kind: str = DIRECT,
    account: str | None = None,
    thread: str | None = None,
    topic: str | None = None,
    agent: str = keys.AGENT_DEFAULT,
    dm_scope: str = "main",
    identities: Mapping[str, Collection[str]] | None = None,
) -> str:
    """
    The key of the conversation that a message belongs to.

    Args:
        channel: where it came in: ``telegram``, ``matrix``, …
        peer: who wrote, if it is a direct message; else the group, channel or room.
        kind: ``direct``, ``group``, ``channel`` or ``room``.
        account: which of our accounts on the channel got it.
        thread, topic: the thread in it, if there is one.
        agent: who answers.
        dm_scope: as the setting `session.dm_scope`.
        identities: person → peers that are this person, ``<channel>:<peer>`` or ``<peer>``, as
            the settings `identities.<name>.peers`.  The name stands for the peer, and nobody
            else can have it.

    Raises:
        BadKeyError: something is empty, malformed, or too long for a key.
    """
    address = Address(agent, channel, account, kind, peer, thread, topic)
    if kind != DIRECT:
        return address_key(address)
    names = identities or {}
    person = _person(channel, peer, names)
    taken = () if person is not None else [name.lower() for name in names]
    address = replace(address, peer=person if person is not None else peer)
    match dm_scope:
        case "main":
            address = replace(address, channel=None, account=None, kind=None, peer=None)
        case "per-peer":
            address = replace(address, channel=None, account=None)
        case "per-channel-peer":
            address = replace(address, account=None)
        case _:
            address = replace(address, account=account or ACCOUNT_DEFAULT)
    return address_key(address, taken)


def address_key(address: Address, taken: Collection[str] = ()) -> str:
    """
    The canonical key of *address*, as it stands.

    Args:
        taken: names that no peer may have by himself.

    Raises:
        BadKeyError: it is not one of the forms above.
    """
    words = ["agent", address.agent]
    if address.kind is None:
        words.append(_MAIN)
    else:
        words += _surface(address, taken)
    for name in _THREADS:
        found = getattr(address, name)
        if found is not None:
            words += [name, _word(_lower(found, address), found)]
    if address.heartbeat:
        words.append(HEARTBEAT)
    return keys.canonical(":".join(words))


def heartbeat_of(key: str) -> str:
    """The key of the isolated heartbeat of *key*; a heartbeat's is its own."""
    words = keys.canonical(key).split(":")
    while words[-1].lower() == HEARTBEAT and len(words) > 3:
        words.pop()
    return keys.canonical(":".join([*words, HEARTBEAT]))


def read(key: str) -> Address | None:
    """What *key* says; None: it is of none of the forms above (`cron:…`, `hook:…`)."""
    head, *words = keys.canonical(key).split(":")
    if head != "agent":
        return None
    agent, *words = words
    heartbeat = False
    while len(words) > 1 and words[-1] == HEARTBEAT:
        words, heartbeat = words[:-1], True
    found: dict[str, str] = {}
    for name in reversed(_THREADS):
        if len(words) > 2 and words[-2] == name:
            found[name] = _decoded(words[-1])
            words = words[:-2]
    address = Address(agent, heartbeat=heartbeat, **found)
    if words == [_MAIN]:
        return address
    at = next((at for at, word in enumerate(words) if word in KINDS), None)
    if at is None or at > 2 or at == len(words) - 1 or (at != 1 and words[at] != DIRECT):
        return None
    before, kind, peer = words[:at], words[at], ":".join(words[at + 1 :])
    if any(word in _RESERVED for word in before):
        return None
    channel, account = [*map(_decoded, before), None, None][:2]
    return replace(address, channel=channel, account=account, kind=kind, peer=_decoded(peer))


# ------------------------------------------------------------------------------ its parts


def _surface(address: Address, taken: Collection[str]) -> list[str]:
    kind, peer = str(address.kind), address.peer or ""
    if kind not in KINDS:
        raise BadKeyError(key=kind[:80], detail=f"a chat is one of {', '.join(KINDS)}")
    words = []
    if address.channel is not None:
        words.append(_word(_folded(address.channel), address.channel))
    elif kind != DIRECT or address.account is not None:
        raise BadKeyError(key=peer[:80], detail="its channel is missing")
    if address.account is not None and kind == DIRECT:  # Our accounts share a group.
        words.append(_word(_folded(address.account), address.account))
    return [*words, kind, _peer(_lower(peer, address), taken)]


def _person(channel: str, peer: str, identities: Mapping[str, Collection[str]]) -> str | None:
    """Whom the settings call this peer; by its channel before by its bare id."""
    for sought in (f"{_folded(channel)}:{_folded(peer)}", _folded(peer)):
        for name, peers in identities.items():
            if any(_folded(each) == sought for each in peers):
                return name
    return None


def _peer(peer: str, taken: Collection[str]) -> str:
    """Colons in it stay, where they cannot be taken for a separator of ours."""
    words = [_escaped(word) for word in peer.split(":")]
    if not peer:
        raise BadKeyError(key="", detail="whom it is with is missing")
    whole = ("%3a" if "" in words else ":").join(
        _encoded(word[0]) + word[1:] if word.lower() in _RESERVED else word for word in words
    )
    return _encoded(whole[0]) + whole[1:] if whole.lower() in taken else whole


def _word(text: str, given: str) -> str:
    """One word, whatever is in it."""
    if not text:
        raise BadKeyError(key=given[:80], detail="a part of it is empty")
    word = _escaped(text, ":")
    return _encoded(word[0]) + word[1:] if word.lower() in _RESERVED else word


def _escaped(text: str, more: str = "") -> str:
    """What no key may have, encoded; with it the marks that would join what stands before."""
    made, after = "", False
    for char in text:
        category = unicodedata.category(char)[0]
        after = (
            char in _ENCODED
            or char in more
            or char.isspace()
            or category == "C"
            or (category == "M" and (after or not made))
        )
        made += _encoded(char) if after else char
    return made


def _encoded(char: str) -> str:
    try:
        return "".join(f"%{byte:02x}" for byte in char.encode())
    except UnicodeEncodeError as error:
        raise BadKeyError(key=ascii(char), detail="it is not valid Unicode") from error


def _decoded(text: str) -> str:
    """What `_encoded` has made; what nobody of us has made stays as it can be read."""
    return _ESCAPES.sub(
        lambda found: bytes.fromhex(found[0].replace("%", "")).decode(errors="replace"), text
    )


def _lower(text: str, address: Address) -> str:
    opaque = (address.channel or "").lower(), address.kind
    return unicodedata.normalize("NFC", text) if opaque in keys.OPAQUE else _folded(text)


def _folded(text: str) -> str:
    """As `keys` spells it."""
    once = unicodedata.normalize("NFC", text).lower()
    return unicodedata.normalize("NFC", once)

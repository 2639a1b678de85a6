"""Where a message came from and the key of its conversation say the same."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given

import holdfast
from holdfast._core import keys
from holdfast._core.addressing import (
    KINDS,
    Address,
    address_key,
    heartbeat_of,
    read,
    session_key,
)
from holdfast.errors import BadKeyError

#: Ids as channels have them, and as somebody who wants into another conversation makes them.
ids = st.one_of(
    st.text(min_size=1, max_size=12),
    st.lists(
        st.sampled_from(
            ["ann", "thread", "topic", "heartbeat", "direct", "main", "7", "", "%3a", "é", "́"]
        ),
        min_size=1,
        max_size=4,
    ).map(":".join),
).filter(bool)
channels = st.sampled_from(["telegram", "matrix", "signal", "slack"])


@st.composite
def addresses(draw: st.DrawFn) -> Address:
    kind = draw(st.sampled_from([None, *KINDS]))
    channel = None if kind is None else draw(channels)
    if kind == "direct":
        channel = draw(st.sampled_from([channel, None]))
    account = draw(st.none() | ids) if kind == "direct" and channel is not None else None
    return Address(
        draw(st.sampled_from(["main", "ops"])), channel, account, kind,
        None if kind is None else draw(ids), draw(st.none() | ids), draw(st.none() | ids),
        draw(st.booleans()),
    )  # fmt: skip


def key_or_none(address: Address) -> str | None:
    try:
        return address_key(address)
    except BadKeyError:
        return None  # Too long once encoded, or not Unicode.


@given(addresses())
@example(Address(channel="slack", kind="direct", peer="ann:thread:7"))
@example(Address(channel="slack", kind="direct", peer="ann", thread="7"))
@example(Address(channel="matrix", kind="room", peer="!AbC:Server.Org", thread="$Ev:1"))
@example(Address(channel="signal", kind="group", peer="Ab/C+="))
@example(Address(kind="direct", peer="heartbeat", heartbeat=True))
def test_what_a_key_says_can_be_read_again(address: Address) -> None:
    key = key_or_none(address)
    assume(key is not None)
    assert key is not None
    assert keys.canonical(key) == key
    found = read(key)
    assert found is not None
    assert address_key(found) == key
    names = ("agent", "channel", "kind", "heartbeat")
    assert [getattr(found, name) for name in names] == [getattr(address, n) for n in names]
    for name in ("account", "peer", "thread", "topic"):
        asked, kept = getattr(address, name), getattr(found, name)
        assert (asked is None) == (kept is None)
    assert read(key) == found


@given(addresses(), addresses())
@example(
    Address(channel="slack", kind="direct", peer="ann:thread:7"),
    Address(channel="slack", kind="direct", peer="ann", thread="7"),
)
@example(
    Address(channel="slack", kind="direct", peer="x", account="direct"),
    Address(channel="slack", kind="direct", peer="direct:x"),
)
@example(Address(kind="direct", peer="a%3ab"), Address(kind="direct", peer="a:b"))
def test_different_facts_never_share_a_conversation(one: Address, other: Address) -> None:
    first, second = key_or_none(one), key_or_none(other)
    assume(first is not None and second is not None)
    assert (first == second) == (read(str(first)) == read(str(second)))
    if first == second:
        for name in Address.__dataclass_fields__:
            ours, theirs = str(getattr(one, name)), str(getattr(other, name))
            assert _folded(ours) == _folded(theirs), "only case and form may differ"


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        ("main", "agent:main:main"),
        ("per-peer", "agent:main:direct:ann"),
        ("per-channel-peer", "agent:main:telegram:direct:ann"),
        ("per-account-channel-peer", "agent:main:telegram:default:direct:ann"),
    ],
)
def test_the_scope_says_who_shares_a_conversation(scope: str, key: str) -> None:
    assert session_key(channel="telegram", peer="Ann", dm_scope=scope) == key
    group = session_key(channel="telegram", peer="-100", kind="group", dm_scope=scope)
    assert group == "agent:main:telegram:group:-100"
    thread = session_key(channel="telegram", peer="Ann", thread="9", dm_scope=scope)
    assert thread == f"{key}:thread:9"


def test_ids_that_mean_their_case_keep_it() -> None:
    key = session_key(channel="matrix", kind="room", peer="!AbC:Server.Org", thread="$Ev")
    assert key == "agent:main:matrix:room:!AbC:Server.Org:thread:$Ev"


def test_one_person_by_several_names_is_one_conversation() -> None:
    people = {"ann": ["telegram:4711", "discord:ann#1"]}
    mine = {
        session_key(channel=c, peer=p, dm_scope="per-peer", identities=people)
        for c, p in [("telegram", "4711"), ("Discord", "Ann#1")]
    }
    assert mine == {"agent:main:direct:ann"}


@given(channels, ids)
def test_nobody_takes_a_persons_name(channel: str, peer: str) -> None:
    people = {"ann": ["telegram:4711"], "thread": ["9"]}
    assume((channel, peer) != ("telegram", "4711"))
    assume(peer != "9")
    for name in (peer, "ann", "ANN", "thread"):
        try:
            key = session_key(
                channel=channel, peer=name, dm_scope="per-peer", identities=people
            )
        except BadKeyError:
            continue
        assert key != "agent:main:direct:ann"


@given(addresses())
def test_a_heartbeats_heartbeat_is_itself(address: Address) -> None:
    key = key_or_none(address)
    assume(key is not None)
    assert key is not None
    try:
        once = heartbeat_of(key)
    except BadKeyError:
        return
    assert heartbeat_of(once) == once
    assert heartbeat_of(f"{once}:heartbeat") == once
    assert read(once) == replace(read(key) or address, heartbeat=True)


@pytest.mark.parametrize(
    "key", ["agent:main:cron:nightly", "agent:main:subagent:7", "agent:main:direct",
            "agent:main:a:b:c:direct:x", "agent:main:cron:direct:x",
            "hook:0190a8e4-0000-7000-8000-000000000000"],
)  # fmt: skip
def test_other_keys_have_no_address(key: str) -> None:
    assert read(key) is None


@pytest.mark.parametrize(
    "facts",
    [
        {"channel": "", "peer": "x", "dm_scope": "per-channel-peer"},
        {"channel": "slack", "peer": ""},
        {"channel": "slack", "peer": "x", "kind": "party"},
        {"channel": "slack", "peer": "x" * 300, "kind": "group"},
        {"channel": "slack", "peer": "x", "thread": ""},
    ],
    ids=str,
)
def test_what_cannot_be_an_address_is_refused(facts: dict[str, str]) -> None:
    with pytest.raises(BadKeyError):
        session_key(**{"dm_scope": "per-peer", **facts})  # type: ignore[arg-type]


def test_it_is_public() -> None:
    assert holdfast.session_key(channel="telegram", peer="Ann") == "agent:main:main"

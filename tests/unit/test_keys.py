"""One conversation, one spelling; and nothing that could be a path gets in."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from holdfast._core import keys
from holdfast.errors import BadKeyError


@pytest.mark.parametrize(
    ("given_key", "canonical"),
    [
        ("main", "agent:main:main"),
        ("MAIN", "agent:main:main"),
        ("agent:main:main", "agent:main:main"),
        ("Agent:Main:Telegram:Direct:Ann", "agent:main:telegram:direct:ann"),
        ("agent:ops:cron:nightly:run:7", "agent:ops:cron:nightly:run:7"),
        ("agent:main:matrix:room:!AbC:Server.Org", "agent:main:matrix:room:!AbC:Server.Org"),
        ("agent:main:signal:group:AbC=", "agent:main:signal:group:AbC="),
        ("agent:main:direct:Łódź", "agent:main:direct:łódź"),
        (
            "hook:0190A8E4-0000-7000-8000-000000000000",
            "hook:0190a8e4-0000-7000-8000-000000000000",
        ),
    ],
)
def test_keys_have_one_spelling(given_key: str, canonical: str) -> None:
    assert keys.canonical(given_key) == canonical
    assert keys.canonical(canonical) == canonical


@pytest.mark.parametrize(
    "key",
    [
        "", "agent", "agent:", "agent:main", "agent:main:", "agent::main", "agent:main::x",
        "agent:ma in:x", "agent:-x:y", "agent:" + "a" * 65 + ":x", "user:ann", "hook:", "hook:7",
        "hook:0190a8e4-0000-7000-8000-000000000000:x", "agent:main:../../etc/passwd",
        "agent:main:a\\b", "agent:main:a\0b", "agent:main:a\nb", "agent:main:a b",
        "agent:main:\u202eabc", "agent:main:" + "x" * 300, "/etc/passwd", ".", "agent:main:\ud800",
    ],
    ids=lambda key: repr(key[:30]),
)  # fmt: skip
def test_what_is_no_key_is_refused_with_a_reason(key: str) -> None:
    with pytest.raises(BadKeyError) as caught:
        keys.canonical(key)
    assert caught.value.detail
    assert len(caught.value.key) <= 80


@given(st.text())
def test_any_text_is_a_key_or_a_bad_key(text: str) -> None:
    try:
        once = keys.canonical(text)
    except BadKeyError:
        return
    assert keys.canonical(once) == once
    assert not set(once) & set("/\\\0\n ")


def test_a_key_names_its_agent() -> None:
    assert keys.agent_of("agent:ops:main") == "ops"
    assert keys.agent_of("hook:0190a8e4-0000-7000-8000-000000000000") == "main"

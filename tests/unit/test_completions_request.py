"""What is read from the body of a chat completion, and what is refused, by name."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast._core import keys
from holdfast.errors import BadKeyError, BadRequestError
from holdfast.gateway import _completions_request as requests
from holdfast.gateway._completions_request import UnsupportedParameterError, parse
from holdfast.gateway._completions_session import agent_for, session_key
from holdfast.gateway.problems import BadFieldError


def said(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def body(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [*messages] or [said("user", "hi")], **more}


# --------------------------------------------------------------------------- what is new


def test_what_follows_the_last_assistant_is_new_and_the_rest_is_seed() -> None:
    asked = parse(
        body(
            said("system", "Be brief."),
            said("user", "one"),
            said("assistant", "two"),
            said("user", "three"),
            said("developer", "Rhyme."),
            said("user", "four"),
        )
    )
    assert asked.text == "three\n\nfour"
    assert asked.instructions == "Be brief.\n\nRhyme."
    assert asked.seed == (
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
    )


def test_without_an_assistant_all_is_new() -> None:
    asked = parse(body(said("user", "a"), said("user", "b")))
    assert (asked.text, asked.seed, asked.instructions) == ("a\n\nb", (), None)


def test_parts_are_texts_joined_like_messages() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = parse(body(said("user", parts), said("assistant", parts), said("user", parts)))
    assert asked.text == "a\n\nb"
    assert [message["content"] for message in asked.seed] == ["a\n\nb"] * 2


def test_an_assistant_that_said_nothing_still_ends_what_was_before() -> None:
    asked = parse(body(said("user", "old"), said("assistant", None), said("user", "new")))
    assert asked.text == "new"
    assert asked.seed == ({"role": "user", "content": "old"},)
    refused = parse(body(said("assistant", None, refusal="No."), said("user", "why?")))
    assert refused.seed == ({"role": "assistant", "content": "No."},)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [said("system")],
        [said("user"), said("assistant")],
        [said("user", " \n")],
        [said("user", [])],
        [said("user"), said("assistant"), said("system")],
    ],
)
def test_nothing_new_is_a_bad_request(messages: list[Any]) -> None:
    with pytest.raises(BadRequestError, match="no user message"):
        parse({"messages": messages})


# ------------------------------------------------------------------------ what is refused

FUNCTION = {"type": "function", "function": {"name": "f"}}
REFUSED = [
    ("tools", [FUNCTION]),
    ("functions", [{"name": "f"}]),
    ("tool_choice", "required"),
    ("tool_choice", FUNCTION),
    ("function_call", {"name": "f"}),
    ("n", 2),
    ("n", 0),
    ("logprobs", True),
    ("top_logprobs", 3),
    ("audio", {"voice": "alloy", "format": "wav"}),
    ("modalities", ["text", "audio"]),
    ("response_format", {"type": "json_object"}),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_no_answer_of_ours_can_have_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        parse(body(**{name: value}))
    assert caught.value.param == name
    assert (caught.value.code, caught.value.status) == ("unsupported_parameter", 400)


NEUTRAL = [
    ("tools", []),
    ("functions", []),
    ("tool_choice", "none"),
    ("tool_choice", "auto"),
    ("function_call", "none"),
    ("n", 1),
    ("logprobs", False),
    ("top_logprobs", 0),
    ("modalities", ["text"]),
    ("response_format", {"type": "text"}),
    *((name, None) for name in requests.REFUSED),
]


@pytest.mark.parametrize(("name", "value"), NEUTRAL)
def test_a_value_that_says_nothing_is_fine(name: str, value: Any) -> None:
    assert parse(body(**{name: value})).text == "hi"


def test_every_refused_field_is_tried_both_ways() -> None:
    assert {name for name, _ in REFUSED} == set(requests.REFUSED)
    assert {name for name, _ in NEUTRAL} == set(requests.REFUSED)


@pytest.mark.parametrize(
    ("message", "where"),
    [
        (said("tool", "4", tool_call_id="c"), ".role"),
        (said("function", "4", name="f"), ".role"),
        (said("assistant", None, tool_calls=[FUNCTION]), ".tool_calls"),
        (said("assistant", None, function_call={"name": "f"}), ".function_call"),
        (said("assistant", None, audio={"id": "a"}), ".audio"),
        (said("user", [{"type": "image_url", "image_url": {"url": "x"}}]), ".content[0]"),
        (said("user", [{"type": "input_audio", "input_audio": {}}]), ".content[0]"),
        (said("user", [{"type": "text", "text": "a"}, {"type": "file"}]), ".content[1]"),
    ],
)
def test_tools_and_media_in_messages_are_refused_where_they_stand(
    message: dict[str, Any], where: str
) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        parse(body(said("user"), message, said("user")))
    assert caught.value.param == f"messages[1]{where}"


WRONG: list[tuple[str, Any]] = [
    ("messages", "hi"),
    ("messages", ["hi"]),
    ("model", 7),
    ("stream", "yes"),
    ("stream_options", []),
    ("stream_options.include_usage", {"include_usage": "yes"}),
    ("user", ["me"]),
    ("tools", "all"),
    ("n", "two"),
    ("temperature", "hot"),
    ("max_tokens", "many"),
    ("stop", [1]),
    ("metadata", "x"),
    ("messages[0].role", [said("robot")]),
    ("messages[0].role", [{"content": "x"}]),
    ("messages[0].role", [{"role": [], "content": "x"}]),
    ("messages[0].content", [{"role": "user"}]),
    ("messages[0].content", [said("user", {"text": "x"})]),
    ("messages[0].content[0]", [said("user", ["x"])]),
    ("messages[0].content[0].text", [said("user", [{"type": "text", "text": 1}])]),
    ("messages[0].refusal", [said("assistant", None, refusal=1)]),
]


@pytest.mark.parametrize(("where", "value"), WRONG)
def test_a_known_field_of_the_wrong_form_is_named(where: str, value: Any) -> None:
    field = where.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]
    with pytest.raises(BadFieldError) as caught:
        parse(body() | {field: value})
    assert (caught.value.name, caught.value.status) == (where, 422)


def test_missing_messages_are_named() -> None:
    with pytest.raises(BadFieldError, match="messages"):
        parse({"model": "m"})


def test_tuning_and_unknown_fields_have_no_effect() -> None:
    tuning = {"temperature": 1, "stop": ["x"], "max_tokens": 5, "seed": 1, "store": True}
    assert set(tuning) <= set(requests.WITHOUT_EFFECT)
    assert parse(body(**tuning, x_extension={"a": 1})) == parse(body())
    assert parse(body(**dict.fromkeys(set(requests.WITHOUT_EFFECT) - {"logit_bias"}))).text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url"]) | JSON}, optional={"text": JSON}
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool"]) | JSON,
        "content": JSON | st.lists(PARTS, max_size=3),
        "tool_calls": JSON,
        "refusal": JSON,
    },
)
NAMES = sorted({*requests.READ, *requests.REFUSED, *requests.WITHOUT_EFFECT} - {"messages"})


@given(
    st.fixed_dictionaries(
        {"messages": st.lists(MESSAGES | JSON, max_size=4) | JSON},
        optional=dict.fromkeys(NAMES, JSON),
    )
)
def test_whatever_comes_is_understood_or_refused_as_input(wild: dict[str, Any]) -> None:
    try:
        asked = parse(wild)
    except (BadFieldError, BadRequestError, UnsupportedParameterError):
        return
    assert asked.text.strip()


# ----------------------------------------------------------------------- which session


def key(**more: Any) -> str:
    given: dict[str, Any] = {"header": None, "user": None, "idempotency_key": None}
    return session_key(**{**given, "agent_id": "main", **more})


def test_the_header_decides_then_the_user_then_chance() -> None:
    assert key(header="Main", user="bob") == "agent:main:main"
    assert key(user="bob", idempotency_key="k") == "agent:main:openai:direct:bob"
    assert key(user="bob", agent_id="other") == "agent:other:openai:direct:bob"
    assert key().startswith("agent:main:openai:once:")
    assert key() != key()
    assert key(user="") != key(user=""), "an empty user is none"


@pytest.mark.parametrize(
    ("user", "encoded"),
    [
        ("Bob", "bob"),
        ("a b", "a%20b"),
        ("a/b\\c:d", "a%2fb%5cc%3ad"),
        ("a@b.example", "a%40b.example"),
        ("100%", "100%25"),
        ("\n\x00", "%0a%00"),
        ("É", "%c3%a9"),
        (unicodedata.normalize("NFD", "É"), "%c3%a9"),
        ("日本", "%e6%97%a5%e6%9c%ac"),
    ],
)
def test_a_user_may_be_called_anything(user: str, encoded: str) -> None:
    assert key(user=user) == f"agent:main:openai:direct:{encoded}"


@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_two_users_share_a_session_only_if_case_is_all_that_differs(a: str, b: str) -> None:
    def same(text: str) -> str:
        return unicodedata.normalize("NFC", text).lower()

    assert keys.canonical(key(user=a)) == key(user=a)
    assert (key(user=a) == key(user=b)) == (same(a) == same(b))


@pytest.mark.parametrize("user", ["u" * 300, "日" * 40, "\ud800"])
def test_a_user_that_no_key_can_hold_is_refused_by_name(user: str) -> None:
    with pytest.raises(BadFieldError) as caught:
        key(user=user)
    assert caught.value.name == "user"


def test_a_header_that_is_no_key_is_refused() -> None:
    with pytest.raises(BadKeyError):
        key(header="nonsense")
    with pytest.raises(BadKeyError):
        key(header="")


def test_a_retry_of_a_one_off_meets_its_session() -> None:
    assert key(idempotency_key="a") == key(idempotency_key="a")
    assert key(idempotency_key="a") != key(idempotency_key="b")
    assert key(idempotency_key="Ä" * 200) == keys.canonical(key(idempotency_key="Ä" * 200))


def test_a_model_that_is_an_agent_names_it() -> None:
    agents = {"main", "coder"}
    assert [agent_for(each, agents) for each in ("coder", "main", "gpt-4o", "", None)] == [
        "coder", "main", "main", "main", "main",
    ]  # fmt: skip

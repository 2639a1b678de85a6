"""Messages that a session begins with: history, neither asked nor said by any turn."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast._core import jsonl
from holdfast._core.settings import Settings
from holdfast._core.tree import Tree, text_of
from holdfast._core.verify import verify
from holdfast._runtime import admission, entries
from holdfast._runtime.admission import asked
from holdfast.errors import BadRequestError, TooLargeError
from holdfast.types import FencingToken

HEADER = {"type": "session", "version": 3, "id": "s", "timestamp": "t", "cwd": "/"}
SEED = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


class Turn:
    turn_id, text = "t", "and now?"


def stamp(turn: str = "t") -> entries.Stamp:
    return entries.Stamp(turn, 1, FencingToken(1))


def tree(*lines: dict[str, Any]) -> Tree:
    found = Tree()
    found.feed(jsonl.lines(jsonl.encode([HEADER, *lines])))
    return found


def seeded(**more: Any) -> list[dict[str, Any]]:
    return entries.seeded(SEED, Turn, stamp(), None, **more)  # type: ignore[arg-type]


def test_the_batch_is_a_chain_that_ends_in_the_question() -> None:
    batch = seeded()
    assert [text_of(each["message"]) for each in batch] == ["one", "two", "three", "and now?"]
    assert [each["parentId"] for each in batch] == [None, *(each["id"] for each in batch[:-1])]
    assert [each["holdfast"].get("seed") for each in batch] == [True, True, True, None]
    assert {key: batch[1]["holdfast"][key] for key in ("turn", "attempt", "token", "seq")} == {
        "turn": "t", "attempt": 1, "token": 1, "seq": 1,
    }  # fmt: skip


def test_an_assistants_message_has_what_the_format_asks_for() -> None:
    message = seeded()[1]["message"]
    assert set(message) == {
        "role", "content", "provider", "model", "usage", "stopReason", "timestamp",
    }  # fmt: skip
    assert set(message["usage"].values()) == {0}


def test_its_turn_sees_it_as_history_and_asks_only_its_question() -> None:
    batch = seeded()
    found = tree(*batch)
    assert [text_of(m) for m in found.history(without={"t"})] == ["one", "two", "three"]
    assert found.questions == {"t": batch[-1]["id"]}
    assert found.ends == {}


def test_a_session_can_be_seeded_until_it_has_a_message() -> None:
    ended = {"type": "custom", "id": "e", "parentId": None, "customType": "x"}
    assert tree(ended).seeded("t") == 0
    assert tree(entries.question(Turn, stamp("other"), None)).seeded("t") is None  # type: ignore[arg-type]
    assert tree(*entries.seeded(SEED, Turn, stamp("other"), None)).seeded("t") is None  # type: ignore[arg-type]


def test_what_a_torn_write_left_out_is_appended_and_no_more() -> None:
    torn = seeded()[:2]
    found = tree(*torn)
    assert found.seeded("t") == 2
    rest = entries.seeded(SEED, Turn, stamp(), found.leaf, start=2)  # type: ignore[arg-type]
    whole = tree(*torn, *rest)
    assert [text_of(m) for m in whole.history()] == ["one", "two", "three", "and now?"]


def test_verify_knows_a_seed_from_a_question() -> None:
    batch = seeded()
    [reply] = entries.reply([{"role": "assistant", "content": "x"}], stamp(), batch[-1]["id"])
    assert verify(jsonl.encode([HEADER, *batch, reply])).ok
    blind = {**reply, "parentId": batch[2]["id"]}
    problems = verify(jsonl.encode([HEADER, *batch, blind])).problems
    assert [each.code for each in problems] == ["final_without_question"]


# ------------------------------------------------------------------------- at the door


def ask(text: str = "hi", **more: Any) -> Any:
    return asked(
        Settings(message_bytes_max=100), "main", text, lane="user", source="api", policy=None,
        idempotency_key=None, model=None, bound=False, home=lambda _: None, **more,
    )  # fmt: skip


def test_only_the_text_tells_one_message_from_another() -> None:
    plain = ask()
    more = ask(instructions="Be brief.", seed=SEED[:1])
    assert plain.request_hash == more.request_hash
    assert (plain.seed, plain.instructions) == (None, None)
    assert (more.seed, more.instructions) == (b'[{"role":"user","content":"one"}]', "Be brief.")


@pytest.mark.parametrize(
    "more", [{"instructions": "i" * 99}, {"seed": [{"role": "user", "content": "s" * 80}]}]
)
def test_all_that_comes_with_a_message_counts_into_its_size(more: Any) -> None:
    with pytest.raises(TooLargeError) as caught:
        ask(**more)
    assert caught.value.size > 100


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "x"},
        {"role": [], "content": "x"},
        {"role": "user"},
        {"role": "user", "content": ["x"]},
        {"content": "x"},
        {"role": "user", "content": "\ud800"},
    ],
)
def test_a_seed_is_what_people_and_assistants_said(message: Any) -> None:
    with pytest.raises(BadRequestError):
        ask(seed=[message])


def test_instructions_are_unicode() -> None:
    with pytest.raises(BadRequestError):
        ask(instructions="\ud800")
    assert admission.SOURCE_CHARS_MAX == 64

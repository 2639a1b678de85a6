"""The lab's arithmetic, and its judge: what it reads in a transcript, and how it says no."""

from __future__ import annotations

import os
from typing import Any

import pytest

from holdfast._core import jsonl
from holdfast.errors import BadRequestError
from holdfast.lab import oracle
from holdfast.lab.bench_turn import _handoffs
from holdfast.lab.figures import ms, quantile, scratch, summary_ms
from holdfast.lab.race import picture, run_race, verdict

HEADER = {"type": "session", "version": 3, "id": "s", "timestamp": "2026-01-01T00:00:00.000Z"}


def entry(entry_id: str, parent: str | None, who: str, role: str, *, at: int = 0) -> Any:
    """A marked message of the race; *who* is ``lane n``."""
    lane, n = who.rsplit(" ", 1)
    text = f"{who}: news?" if role == "user" else f"reply to {who}"
    return {
        "type": "message",
        "id": entry_id,
        "parentId": parent,
        "timestamp": f"2026-01-01T00:00:00.{at:03}Z",
        "message": {"role": role, "content": [{"type": "text", "text": text}]},
        "race": {"lane": lane, "n": int(n)},
    }


def judge(*entries: Any) -> oracle.Facts:
    return oracle.judge(jsonl.encode([HEADER, *entries]))


# ------------------------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (1.0, 100)]
)
def test_a_quantile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert expected == quantile([*range(100, 0, -1)], share)


def test_a_quantile_of_one_value_is_that_value() -> None:
    assert quantile([7], 0.5) == quantile([7], 0.99) == 7


def test_a_summary_is_in_milliseconds() -> None:
    assert summary_ms([1_000_000, 2_000_000, 30_000_000]) == {"p50_ms": 2.0, "p99_ms": 30.0}
    assert ms(1_234_567) == 1.235


def test_the_scratch_directory_is_gone_afterwards(tmp_path: Any) -> None:
    with scratch(str(tmp_path)) as made:
        assert os.path.dirname(made) == str(tmp_path)
        with open(os.path.join(made, "file"), "w") as file:
            file.write("x")
    assert not os.path.exists(made)


def test_a_handoff_is_counted_only_between_processes_and_only_if_somebody_waited() -> None:
    spans = {
        "left": {"spans": [[0, 10, -1, 0], [40, 50, 5, 0], [60, 70, 45, 0], [90, 95, 89, 1]]},
        "right": {"spans": [[13, 30, 4, 0], [75, 80, 72, 0]]},
    }
    # 10→13 and 30→40 count; 50→60 stays in one process; the turn at 75 came after 70; the
    # one at 90 is another session's.
    assert _handoffs(spans) == [3, 10]


# --------------------------------------------------------------------------------- judging


def test_replies_in_turn_are_seen() -> None:
    facts = judge(
        entry("q1", None, "a 1", "user"),
        entry("r1", "q1", "a 1", "assistant", at=5),
        entry("q2", "r1", "b 1", "user", at=6),
        entry("r2", "q2", "b 1", "assistant", at=9),
    )
    assert (
        len(facts.exchanges),
        facts.seen,
        facts.interleaved,
        facts.problems,
    ) == (2, 2, 0, ())


def test_a_reply_that_the_next_turn_cannot_see_is_lost() -> None:
    """The founding loss: both answer under their own question; one branch stays behind."""
    facts = judge(
        entry("q1", None, "a 1", "user"),
        entry("q2", "q1", "b 1", "user", at=1),
        entry("r1", "q1", "a 1", "assistant", at=5),
        entry("r2", "q2", "b 1", "assistant", at=6),
    )
    lost, seen = facts.exchanges
    assert (lost.seen, seen.seen) == (False, True)
    assert lost.interleaved
    assert seen.interleaved
    assert "2 asked, 1 answered where the next turn can see it, 1 lost" in verdict("off", facts)


def test_a_reply_under_somebody_elses_entry_is_lost() -> None:
    facts = judge(
        entry("q1", None, "a 1", "user"),
        entry("q2", "q1", "b 1", "user"),
        entry("r1", "q2", "a 1", "assistant"),
    )
    assert not any(exchange.seen for exchange in facts.exchanges)


def test_a_question_without_a_reply_is_lost_and_not_interleaved() -> None:
    (only,) = judge(entry("q1", None, "a 1", "user")).exchanges
    assert (only.seen, only.interleaved, only.replies) == (False, False, ())


def test_two_final_entries_are_both_told() -> None:
    (only,) = judge(
        entry("q1", None, "a 1", "user"),
        entry("r1", "q1", "a 1", "assistant"),
        entry("r2", "r1", "a 1", "assistant"),
    ).exchanges
    assert len(only.replies) == 2


def test_only_final_counts_as_a_reply_in_a_stamped_transcript() -> None:
    question = entry("q1", None, "a 1", "user")
    step = entry("s1", "q1", "a 1", "assistant")
    final = entry("r1", "s1", "a 1", "assistant")
    for seq, each in enumerate((question, step, final)):
        del each["race"]
        each["holdfast"] = {"turn": "t", "attempt": 1, "token": 1, "seq": seq}
    assert not judge(question, step).exchanges[0].replies
    final["holdfast"]["final"] = True
    (only,) = judge(question, step, final).exchanges
    assert only.seen
    assert len(only.replies) == 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (jsonl.encode([HEADER]) + b'{"id":', "torn"),
        (jsonl.encode([HEADER]) + b"not json\n", "unparsable"),
        (jsonl.encode([HEADER, *[entry("q", None, "a 1", "user")] * 2]), "duplicate_id"),
        (jsonl.encode([HEADER, entry("q", "nobody", "a 1", "user")]), "parent"),
        (jsonl.encode([entry("q", None, "a 1", "user")]), "header"),
    ],
)
def test_a_broken_transcript_is_called_so(data: bytes, problem: str) -> None:
    assert any(problem in found for found in oracle.judge(data).problems)


# --------------------------------------------------------------------------------- telling


def test_the_picture_has_a_column_a_lane_and_a_bar_while_a_call_is_in_flight() -> None:
    lines = picture(
        judge(
            entry("q1", None, "one 1", "user"),
            entry("q2", "q1", "two 1", "user", at=10),
            entry("r1", "q1", "one 1", "assistant", at=300),
            entry("r2", "q2", "two 1", "assistant", at=310),
        ),
        ["one", "two"],
    )
    assert [line.split() for line in lines] == [
        ["ms", "one", "two"],
        ["0", "asked", "1"],
        ["10", "│", "asked", "1"],
        ["300", "lost", "1", "│"],
        ["310", "answered", "1"],
    ]


@pytest.mark.parametrize(
    "wrong", [{"guard": "luck"}, {"lanes": 0}, {"turns": 0}, {"lanes": 10_000}]
)
def test_a_race_that_cannot_be_run_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        run_race(**wrong)


def test_an_unknown_guard_is_told_what_there_is() -> None:
    with pytest.raises(BadRequestError, match="available: off, fence, turns"):
        run_race(guard="luck")

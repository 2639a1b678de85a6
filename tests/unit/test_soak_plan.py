"""What a soak draws from its seed, how its model behaves, and what it says of memory."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.errors import BadRequestError
from holdfast.lab.soak_elsewhere import Model
from holdfast.lab.soak_plan import OUTSIDE, make_plan, read_plan
from holdfast.lab.soak_report import markdown, memory
from holdfast.testing.model_server import Received

# --------------------------------------------------------------------------------- memory

MB = 1_000_000


def samples(*, late: float, until: int = 90) -> list[tuple[float, int]]:
    return [(at, int(100 * MB * (late if at > 50 else 1.0))) for at in range(until)]


def test_memory_is_compared_early_and_late_of_those_that_lived_through_both() -> None:
    found = memory(
        {"old": samples(late=1.5), "steady": samples(late=1.0), "young": samples(late=9)[40:]},
        60.0,
    )
    assert found["ratio"] == 1.5
    assert found["by"].keys() == {"old", "steady"}
    assert "note" not in found


def test_one_wild_sample_is_not_a_leak() -> None:
    wild = [(at, 900 * MB if at == 60 else size) for at, size in samples(late=1.0)]
    assert memory({"one": wild}, 60.0)["ratio"] == 1.0


def test_a_short_soak_says_what_it_compared_and_a_shorter_one_compares_nothing() -> None:
    found = memory({"one": samples(late=1.0, until=45)}, 40.0)
    assert (found["ratio"], found["late_s"]) == (1.0, 40.0)
    assert "40" in found["note"]
    assert memory({"one": samples(late=1.0)}, 20.0)["ratio"] is None


# ------------------------------------------------------------------------- plan and model


def test_a_seed_is_a_plan(tmp_path: Any) -> None:
    one, same, other = (
        make_plan(processes=3, sessions=12, duration_s=60, seed=seed) for seed in (7, 7, 8)
    )
    assert one == same
    assert one.acts != other.acts
    assert one.blows != other.blows
    one.write(str(tmp_path / "plan.json"))
    assert read_plan(str(tmp_path / "plan.json")) == one


def test_a_minute_has_everything_in_it() -> None:
    plan = make_plan(processes=3, sessions=12, duration_s=60, seed=5)
    sends = [act for act in plan.acts if act.what == "send"]
    assert {act.what for act in plan.acts} == {"send", "again", "cancel", "take_back", "reset"}
    assert {act.by for act in sends} == {OUTSIDE, 0, 1, 2}
    assert {act.lane for act in sends} == {"user", "cron", "heartbeat", "subagent"}
    policies = {"enqueue", "collect", "steer", "interrupt", "reject", "rollback", None}
    assert {act.policy for act in sends} == policies
    words = {word.partition("=")[0] for act in sends for word in act.text.split()[1:]}
    assert {"rate", "down", "error", "eof", "hang", "slow", "safe", "never", "ask"} <= words
    assert {blow.runner for blow in plan.blows if blow.for_s is None} <= {1, 2}
    assert any(blow.for_s is None for blow in plan.blows)
    assert all(blow.for_s is None or blow.for_s < 10 for blow in plan.blows)


@pytest.mark.parametrize(
    "wrong", [{"processes": 1}, {"sessions": 0}, {"duration_s": 0.5}, {"processes": 99}]
)
def test_a_plan_has_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError):
        make_plan(**({"processes": 3, "sessions": 12, "duration_s": 60.0, "seed": 1} | wrong))


def test_a_model_does_what_the_text_says_request_by_request() -> None:
    model = Model()

    def ask(text: str) -> Any:
        return model.receive(Received(body={}, text=text, retry=None))

    text = "m7: rate never hang ok"
    assert ask(text).error == "rate_limit"
    called = ask(text)
    assert (called.tool, called.arguments) == ("never", {"tag": "m7.1"})
    assert ask(text).end == "hang"
    assert (ask(text).error, ask(text).tool, ask(text).end) == (None, None, "done")
    assert ask("m8: never ok").arguments == {"tag": "m8.0"}, "every call has its own tag"
    model.calm = True
    assert ask("m9: hang ok").end == "done"


def test_a_report_names_what_is_wrong() -> None:
    found: dict[str, Any] = {
        "at": "now", "processes": 2, "sessions": 3, "duration_s": 4.0, "seed": 5,
        "clean": False, "accepted": 1, "outcomes": {"replied": 1}, "unanswered": 0,
        "duplicates": 1, "holds_left": 0, "transcripts_ok": False, "rss_ratio": None,
        "rss": {"note": "too short"}, "deliveries": {}, "tools": {},
        "storm": {
            "killed": 1, "stopped": 1, "frozen_killed": 0, "frozen_holder": "report",
            "lives": 3, "calm_s": 1.0,
        },
        "senders": {"begun": 1, "refused": 0}, "waits": {"all": None},
        "merges": {"total": 2, "by_lane": {"user": 2}},
        "problems": {"one_final_a_reply": ["turn a has two"]},
    }  # fmt: skip
    told = "\n".join(markdown(found))
    assert "NOT CLEAN" in told
    assert "- one_final_a_reply: turn a has two" in told
    assert "| merges | 2 | user 2 |" in told
    assert "DO NOT VERIFY" in told

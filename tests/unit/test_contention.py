"""The report from the event log: who waited for whom, by hand-made logs with known answers."""

from __future__ import annotations

from typing import Any
from xml.dom import minidom

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast._core.contention import FREE, Tally, report
from holdfast._core.telling import SORTS
from holdfast.errors import BadRequestError
from holdfast.lab.report import print_report, since_of
from holdfast.lab.report_svg import drawn
from holdfast.types import EventRow, OwnerId, SessionId, TurnId


class Log:
    """Writes a log; times are ms, and stand in `at` as they are."""

    def __init__(self) -> None:
        self.events: list[EventRow] = []

    def add(self, at: int, kind: str, turn: str, lane: str = "user", **data: Any) -> None:
        session = data.pop("session", "s")
        self.events.append(
            EventRow(
                len(self.events) + 1, f"{at:09}", kind, SessionId(session), TurnId(turn),
                OwnerId("o"), lane, data,
            )
        )  # fmt: skip

    def report(self, since: int = 0) -> dict[str, Any]:
        found = report(self.events, int, since=f"{since:09}")
        return found.to_json({"s": "agent:main:main"})


def waited(told: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    return {
        (each["waiting"], each["behind"]): (each["turns"], each["total_ms"])
        for each in told["contention"]
    }


def test_a_heartbeat_behind_a_person_is_told_with_how_long() -> None:
    log = Log()
    log.add(0, "accepted", "a")
    log.add(0, "lease", "a", waited_ms=0)
    log.add(400, "accepted", "b", "heartbeat")
    log.add(1000, "commit", "a", outcome="replied", ran_ms=1000)
    log.add(1050, "lease", "b", "heartbeat", waited_ms=650)
    log.add(1300, "end", "b", "heartbeat", outcome="silent", ran_ms=250)
    told = log.report()
    assert waited(told) == {("heartbeat", "user"): (1, 600), ("heartbeat", FREE): (1, 50)}
    assert told["waits"]["heartbeat"]["max_ms"] == 650
    assert told["runs"]["user"]["p50_ms"] == 1000
    assert told["outcomes"] == {"replied": 1, "silent": 1}
    assert told["worst"][0]["key"] == "agent:main:main"
    assert told["worst"][0]["waited_ms"] == 600
    assert told["still_waiting"] == 0


def test_a_turn_waits_for_every_lane_that_held_its_session_meanwhile() -> None:
    log = Log()
    log.add(0, "accepted", "a")
    log.add(0, "lease", "a")
    log.add(100, "accepted", "c", "cron")
    log.add(100, "accepted", "b", "subagent")
    log.add(300, "commit", "a", outcome="replied")
    log.add(300, "lease", "b", "subagent")
    log.add(700, "commit", "b", "subagent", outcome="replied")
    log.add(700, "lease", "c", "cron")
    assert waited(log.report()) == {
        ("subagent", "user"): (1, 200), ("cron", "user"): (1, 200),
        ("cron", "subagent"): (1, 400),
    }  # fmt: skip


def test_a_turn_put_back_begins_to_wait_anew() -> None:
    log = Log()
    log.add(0, "accepted", "a")
    log.add(0, "lease", "a", waited_ms=0)
    log.add(200, "requeue", "a", reason="owner_died")
    log.add(200, "lease", "b", "cron", waited_ms=0)
    log.add(500, "commit", "b", "cron", outcome="replied", ran_ms=300)
    log.add(500, "lease", "a", waited_ms=500)
    log.add(600, "commit", "a", outcome="replied", ran_ms=100)
    told = log.report()
    assert waited(told) == {("user", "cron"): (1, 300)}
    assert told["waits"]["user"]["turns"] == 1, "the wait to the first start alone"


def test_sessions_do_not_wait_for_each_other() -> None:
    log = Log()
    log.add(0, "lease", "a", session="one")
    log.add(100, "accepted", "b", session="two")
    log.add(300, "lease", "b", session="two")
    assert waited(log.report()) == {("user", FREE): (1, 200)}


def test_what_happened_is_counted_by_session_and_lane() -> None:
    log = Log()
    log.add(0, "give_back", "a", reason="taken_over")
    log.add(1, "fenced", "a", token=1, newer=2)
    log.add(2, "abort_requested", "a", reason="cancelled")
    log.add(3, "abort_requested", "h", "heartbeat", reason="preempted")
    log.add(4, "merged", "m", host="a")
    log.add(5, "adopted", "a", home="x", session="other")
    log.add(6, "stuck", "a", **{"class": "stalled_agent_run"})
    told = log.report()
    for sort in SORTS:
        assert told["happened"][sort]["total"] == 1, sort
    assert told["happened"]["preemption"]["by_lane"] == {"heartbeat": 1}
    assert told["happened"]["adoption"]["by_session"] == {"other": 1}
    assert told["stuck"] == {"stalled_agent_run": 1}
    assert told["worst"][0]["takeover"] == 1


def test_since_counts_from_there_but_knows_what_was_before() -> None:
    log = Log()
    log.add(0, "accepted", "a")
    log.add(0, "lease", "a", waited_ms=0)
    log.add(100, "accepted", "b", "cron")
    log.add(900, "commit", "a", outcome="replied", ran_ms=900)
    log.add(900, "lease", "b", "cron", waited_ms=800)
    told = log.report(since=900)
    assert told["turns"] == 0
    assert told["events"] == 2
    assert waited(told) == {("cron", "user"): (1, 800)}


def test_a_log_whose_beginning_is_gone_is_read_all_the_same() -> None:
    log = Log()
    log.add(0, "commit", "gone", outcome="replied", ran_ms=70)
    log.add(1, "lease", "late", "cron", waited_ms=40)
    log.add(2, "settle", "gone", outcome="replied")
    told = log.report()
    assert told["runs"]["user"]["total_ms"] == 70
    assert told["waits"]["cron"]["total_ms"] == 40
    assert told["contention"] == []


KINDS = ("accepted", "lease", "requeue", "give_back", "commit", "end", "merged", "fenced")


@given(
    st.lists(
        st.tuples(
            st.integers(0, 50), st.sampled_from(KINDS), st.sampled_from("abcd"),
            st.sampled_from(("user", "cron")), st.sampled_from(("s", "t")),
        ),
        max_size=60,
    )
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_log_gives_a_report_and_nobody_waits_longer_than_it_lasted(
    steps: list[Any],
) -> None:
    log, at = Log(), 0
    for passed, kind, turn, lane, session in steps:
        at += passed
        log.add(at, kind, turn, lane, session=session)
    told = log.report()
    for each in told["contention"]:
        assert 0 < each["p50_ms"] <= each["p95_ms"] <= each["max_ms"] <= at
    minidom.parseString(drawn({**told, "store": "s", "since": None}))


def test_quantiles_are_values_that_were_there() -> None:
    tally = Tally([5, 1, 4, 2, 3])
    assert (tally.quantile(0.5), tally.quantile(0.95), tally.quantile(1.0)) == (3, 5, 5)
    assert Tally([7]).quantile(0.5) == 7


# ------------------------------------------------------------------- the table, the picture


def hostile() -> dict[str, Any]:
    log = Log()
    log.add(0, "lease", "a", "<script>&\"'\x00\x1b]0;x")
    log.add(1, "accepted", "b", "user")
    log.add(500, "commit", "a", "<script>&\"'\x00\x1b]0;x", outcome="replied")
    log.add(500, "lease", "b", "user", waited_ms=499)
    found = report(log.events, int).to_json({"s": "<&>" + "k" * 300})
    return {**found, "store": "s", "since": None}


def test_the_picture_is_valid_and_text_in_it_is_only_text() -> None:
    svg = drawn(hostile())
    document = minidom.parseString(svg)
    assert document.documentElement.tagName == "svg"
    names = {node.tagName for node in document.getElementsByTagName("*")}
    assert names == {"svg", "title", "style", "rect", "text"}
    assert "prefers-color-scheme: dark" in svg
    width = int(document.documentElement.getAttribute("width"))
    for bar in document.getElementsByTagName("rect"):
        right = int(bar.getAttribute("x") or 0) + int(bar.getAttribute("width"))
        assert right <= width


def test_what_is_cut_in_the_picture_stands_whole_behind_it() -> None:
    long = "heartbeat-of-every-morning-and-every-evening"
    told = hostile()
    told["contention"] = [{**told["contention"][0], "waiting": long, "behind": "user"}]
    svg = drawn(told)
    texts = minidom.parseString(svg).getElementsByTagName("text")
    [label] = [each.toxml() for each in texts if ">heartbeat-of-" in each.toxml()]
    assert "…" in label
    assert label.endswith(f"<title>{long} behind user</title></text>")


def test_the_table_says_what_the_json_says() -> None:
    said: list[str] = []
    told = hostile()
    print_report(told, said.append, lambda head, rows: said.extend(map(str, [head, *rows])))
    text = "\n".join(said)
    assert "Who waited for whom" in text
    assert "499 ms" in text
    for sort in SORTS:
        assert sort in text


@pytest.mark.parametrize("text", ["", "yesterday", "2 h", "5w", "9999999999d", "2026-13-01"])
def test_a_since_that_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        since_of(text)


def test_a_since_is_an_age_or_a_moment() -> None:
    assert since_of(None) == ""
    assert since_of("2026-11-21T10:00:00Z") == "2026-11-21T10:00:00.000Z"
    assert since_of("2026-11-21T12:00:00+02:00") == "2026-11-21T10:00:00.000Z"
    assert since_of("2026-11-21") == "2026-11-21T00:00:00.000Z"
    assert since_of("3d") < since_of("2h") < since_of("90s")

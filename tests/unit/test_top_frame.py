"""`holdfast top` in 80 columns: a golden frame, and frames of anything, never too wide."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from holdfast.cli._top.frame import frame

TURN = "01930a1b-2c3d-7e4f-8a9b-0c1d2e3f4a5b"


def lane(name: str, concurrency: int, running: int, waiting: int, ms: int) -> dict[str, Any]:
    oldest = "2026-11-21T10:00:00.000Z" if waiting else None
    return {
        "lane": name, "concurrency": concurrency, "priority": 1, "running": running,
        "waiting": waiting, "oldest": oldest, "oldest_ms": ms,
    }  # fmt: skip


def lease(session: str, **changes: Any) -> dict[str, Any]:
    return {
        "session": session, "turn_id": TURN, "lane": "user", "age_ms": 42_000, "pid": 4711,
        "life": "alive", "recovering": False, "abort_requested": False,
        "progress": {"kind": "model"}, **changes,
    }  # fmt: skip


def wait(session: str, reason: str, count: int = 1) -> dict[str, Any]:
    return {
        "session": session, "waiting": count, "lane": "cron", "waited_ms": 7_500_000,
        "reason": reason,
    }  # fmt: skip


TOLD: dict[str, Any] = {
    "at": "2026-11-21T10:00:42.000Z",
    "store": "/var/lib/holdfast",
    "running": 3,
    "waiting": 12,
    "owed": 5,
    "sessions": 40,
    "last_minute": {"ended": 14, "takeovers": 0, "reclaims": 1},
    "lanes": [lane("user", 32, 2, 3, 4_200), lane("cron", 8, 8, 9, 7_500_000)],
    "leases": [
        lease("agent:main:main"),
        lease(
            "agent:main:a-very-long-session-key", life="stopped", progress={"tool": "search"}
        ),
        lease("agent:ops:main", pid=None, life="gone", recovering=True),
    ],
    "waits": [
        wait("agent:main:reports", "waiting for a free slot of lane cron (8 of 8 in use)")
    ],
}

GOLDEN = """\
10:00:42 UTC  /var/lib/holdfast
3 running, 12 waiting, 5 parts owed, 40 sessions
last minute: 14 ended, 1 reclaim

LANE              RUNNING    WAITING    OLDEST
user              2/32       3          4.2 s
cron              8/8        9          2 h 5 min  full

SESSION          LANE       TURN            AGE        PROCESS        DOING
main:main        user       01930a1b-2c3d…  42 s       4711           model
main:a-very-lo…  user       01930a1b-2c3d…  42 s       4711 stopped   search
ops:main         user       01930a1b-2c3d…  42 s       - gone         recovering

SESSION            TURNS  LANE       SINCE      REASON
main:reports       1      cron       2 h 5 min  waiting for a free slot of lane…"""


def test_a_frame_of_80_columns() -> None:
    assert "\n".join(frame(TOLD, 80)) == GOLDEN


@pytest.mark.parametrize(("owed", "said"), [(0, "12 waiting, 40"), (1, "1 part owed, 40")])
def test_what_is_owed_is_counted_if_anything_is(owed: int, said: str) -> None:
    assert said in frame({**TOLD, "owed": owed}, 80)[1]
    assert frame({**TOLD, "sessions": 1}, 80)[1].endswith(" 1 session")


def test_a_low_terminal_keeps_its_head_and_says_how_many_more() -> None:
    many = {**TOLD, "leases": [lease(f"agent:main:{n}") for n in range(90)]}
    lines = frame(many, 80, 24)
    assert len(lines) == 24
    assert any("more" in line for line in lines)
    assert any(line.startswith("SESSION") and "REASON" in line for line in lines)


texts = st.text(max_size=40)


@given(
    st.lists(texts, max_size=4), texts, st.integers(20, 200), st.integers(1, 60),
    st.integers(0, 10**12),
)  # fmt: skip
@settings(deadline=None)
def test_no_frame_is_wider_or_higher_than_its_terminal(
    names: list[str], reason: str, width: int, height: int, ms: int
) -> None:
    told = {
        **TOLD,
        "store": reason,
        "lanes": [lane(name, 1, 1, 1, ms) for name in names],
        "leases": [
            lease(name, lane=reason, age_ms=ms, progress={"tool": name}) for name in names
        ],
        "waits": [wait(name, reason, ms) for name in names],
    }
    lines = frame(told, width, height)
    assert len(lines) <= height
    for line in lines:
        assert cell_len(line) <= width, line
        assert line.isprintable() or not any(char < " " for char in line), line

"""
A minute of everything at once: three runners that are killed and stopped, models and a receiver
that misbehave, senders of all lanes and policies.  What is left is judged from outside.

`tests/unit/test_soak_checks.py` shows that each of the judges can say no.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HOLDFAST = [sys.executable, "-m", "holdfast"]
WITHIN_S = 400


@pytest.mark.timeout(WITHIN_S + 20)
def test_a_minute_of_kills_and_bad_company_loses_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *HOLDFAST, "lab", "run", "soak", "--processes", "3", "--sessions", "12",
            "--duration", "60s", "--seed", "5", "--report", tmp_path / "report", "--json",
        ],
        check=False, capture_output=True, text=True, timeout=WITHIN_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["clean"]
    assert not found["problems"]
    zeroes = {name: found[name] for name in ("unanswered", "duplicates", "holds_left")}
    assert not any(zeroes.values()), zeroes
    assert found["transcripts_ok"]
    assert sum(found["outcomes"].values()) == found["accepted"] > 50
    assert found["rss_ratio"] is not None, "no process lived from early to late"
    storm = found["storm"]
    assert min(storm["killed"], storm["stopped"]) > 0, "there was no storm"
    assert found["reclaims"]["total"] > 0, "nobody was killed in the middle of anything"
    assert {"user", "cron", "heartbeat", "subagent"} <= found["by_lane"].keys()
    assert found["deliveries"]["attempts"] > found["deliveries"]["delivered"] > 0
    assert json.loads((tmp_path / "report" / "soak.json").read_text()) == found
    told = (tmp_path / "report" / "soak.md").read_text()
    assert "**clean**" in told
    assert "| user |" in told
    assert list((tmp_path / "report").iterdir()) == [*(tmp_path / "report").glob("soak.*")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["soak", "--duration", "soon"], "--duration"),
        (["soak", "--processes", "1"], "processes"),
        (["soak", "--sessions", "0"], "sessions"),
        (["soak", "--duration", "1s"], "duration"),
    ],
)
def test_a_soak_that_cannot_be_is_refused_before_anything_runs(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = subprocess.run(
        [*HOLDFAST, "lab", "run", *arguments, "--report", tmp_path / "report"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert not (tmp_path / "report").exists()

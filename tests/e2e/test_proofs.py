"""The founding threads' own demonstrations, as anybody may run them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from holdfast.errors import NotFoundError
from holdfast.lab.proofs import PROOFS, run_proof


def lab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast", "lab", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", PROOFS)
def test_a_demonstration_passes_and_tells_what_happened_when(name: str) -> None:
    said: list[str] = []
    found = run_proof(name, said.append)
    assert found["passed"], said
    times = [event["at_ms"] for event in found["timeline"]]
    assert times == sorted(times)
    assert len(said) == len(times) + 4
    assert said[0].startswith(f"{name} (PR #")
    assert said[-1].strip() == "PASS"


def test_they_are_run_by_name_as_text_and_as_json() -> None:
    both = lab("run", "proof-eio", "proof-contention", "--json")
    assert both.returncode == 0, both.stderr
    found = [json.loads(line) for line in both.stdout.splitlines()]
    assert [each["name"] for each in found] == ["proof-eio", "proof-contention"]
    text = lab("run", "proof-same-file")
    assert "replies delivered 2 of 2" in text.stdout
    assert json.loads(lab("list", "--json").stdout)["scenarios"][0].keys() == {
        "name", "refs", "about",
    }  # fmt: skip


def test_an_unknown_name_is_told_before_anything_runs() -> None:
    refused = lab("run", "proof-eio", "proof-nothing")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert "holdfast lab list" in refused.stderr
    with pytest.raises(NotFoundError):
        run_proof("proof-nothing")

"""
What a transcript says, read without any code of ours: the judge of the end-to-end tests.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


def read(path: Path) -> list[Entry]:
    """Every line must parse: one that does not is a torn or interleaved write."""
    data = path.read_bytes()
    assert data.endswith(b"\n"), "the last line is torn"
    entries = [json.loads(line) for line in data.split(b"\n")[:-1]]
    assert entries[0]["type"] == "session"
    return entries[1:]


def only_transcript(state: Path) -> Path:
    [path] = state.glob("agents/*/sessions/*.jsonl")
    return path


def text_of(entry: Entry) -> str:
    content = entry["message"]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


def finals(entries: list[Entry]) -> list[Entry]:
    return [e for e in entries if e.get("holdfast", {}).get("final") is True]


def check_ids(entries: list[Entry]) -> None:
    """No id stands twice, not even on another branch."""
    twice = [entry_id for entry_id, n in Counter(e["id"] for e in entries).items() if n > 1]
    assert not twice, "an id twice"


def check_whole(entries: list[Entry]) -> None:
    """Ids are unique, and every parent stands before its child."""
    seen: set[str] = set()
    for entry in entries:
        assert entry["id"] not in seen, "an id twice"
        assert entry["parentId"] is None or entry["parentId"] in seen, "an orphan"
        seen.add(entry["id"])


def check_answers(entries: list[Entry]) -> dict[str, str]:
    """
    One final entry a turn, and from each the parents lead to its own question before any
    entry of another turn.  Returns question text → reply text.
    """
    by_id = {entry["id"]: entry for entry in entries}
    turns = Counter(entry["holdfast"]["turn"] for entry in finals(entries))
    assert not [turn for turn, count in turns.items() if count > 1], "a turn answered twice"
    answers = {}
    for final in finals(entries):
        turn, here = final["holdfast"]["turn"], final
        while True:
            here = by_id[here["parentId"]]
            stamp = here.get("holdfast")
            if stamp is None:
                continue  # Not a turn's: a label, a stranger's note.
            assert stamp["turn"] == turn, "a reply built on another turn's entry"
            if here["type"] == "message" and here["message"]["role"] == "user":
                break
        answers[text_of(here)] = text_of(final)
    return answers

"""What typed lines mean, how entries become exchanges, and what is kept of what was typed."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli._chat import history as module
from holdfast.cli._chat.exchanges import Exchange, Exchanges
from holdfast.cli._chat.history import History
from holdfast.cli._chat.lines import Command, Message, joined, read
from holdfast.cli._chat.screen import tame


@pytest.mark.parametrize(("text", "meant"), [
    ("hello", Message("hello")),
    (" /not a command", Message(" /not a command")),
    ("//who", Message("/who")),
    ("///", Message("//")),
    ("two\nlines", Message("two\nlines")),
    ("/who", Command("who")),
    ("/who ", Command("who")),
    ("/history 7", Command("history", 7)),
    ("", None),
    (" \t", None),
])  # fmt: skip
def test_what_a_line_means(text: str, meant: object) -> None:
    assert read(text) == meant


@pytest.mark.parametrize("text", [
    "/", "/nope", "/WHO", "/who me", "/history 0", "/history 501", "/history ²", "/history -1",
    "/history 99999999999999999999", "/who\nme",
])  # fmt: skip
def test_what_is_no_command(text: str) -> None:
    found = read(text)
    assert isinstance(found, Command)
    assert found.error


def test_a_backslash_at_the_end_goes_on() -> None:
    assert joined(["a"]) == "a"
    assert joined(["a\\"]) is None
    assert joined(["a\\", "b\\"]) is None
    assert joined(["a\\", "b\\", "c"]) == "a\nb\nc"


def test_what_steers_is_shown_and_does_nothing() -> None:
    assert tame("a\x1b[31mb\x07c\x9bd\te\nf\r\ng\rh") == "a�[31mb�c�d\te\nf\ng�h"


# ------------------------------------------------------------------------------ exchanges


def message(turn: str | None, role: str, *content: Any, **stamp: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]
    entry = {"type": "message", "message": {"role": role, "content": parts}}
    return entry if turn is None else {**entry, "holdfast": {"turn": turn, **stamp}}


def test_entries_become_exchanges() -> None:
    call = {"type": "toolCall", "name": "add", "arguments": {}}
    ended = {
        "type": "custom", "customType": "holdfast:turn-ended", "holdfast": {"turn": "b"},
        "data": {"turn": "b", "outcome": "cancelled", "reason": "asked"},
    }  # fmt: skip
    entries = [
        (message("a", "user", "old", seed=True), Exchange(None, "old", None)),
        (message("a", "assistant", "older", seed=True), Exchange(None, None, "older")),
        (message("a", "user", "2+2?"), None),
        (message("a", "assistant", call), None),
        (message("a", "toolResult", "4"), None),
        (message("b", "user", "b?"), None),
        (
            message("a", "assistant", "4", final=True),
            Exchange("a", "2+2?", "4", tools=("add",)),
        ),
        (ended, Exchange("b", "b?", None, "cancelled", "asked")),
        (message("c", "assistant", "late", final=True), Exchange("c", None, "late")),
        (message(None, "user", "by hand"), Exchange(None, "by hand", None)),
        ({"type": "label", "label": "x"}, None),
        ({"type": "message", "message": "nonsense", "holdfast": 7}, None),
        (
            {**ended, "holdfast": {"turn": "d"}, "data": None},
            Exchange("d", None, None, "failed"),
        ),
    ]
    exchanges = Exchanges()
    for entry, exchange in entries:
        assert exchanges.feed(entry) == exchange, entry
    assert exchanges._begun == {}


# -------------------------------------------------------------------------------- history


def test_lines_are_kept_and_offered_again(tmp_path: Path) -> None:
    path = str(tmp_path / "h")
    first = History(path)
    assert first.load() == []
    for line in ("one", "two\nlines", "drei – ☃"):
        assert first.add(line)
    assert not first.add("  ")
    assert not first.add("x" * 5_000)
    assert History(path).load() == ["one", "two\nlines", "drei – ☃"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_secret_is_not_kept(tmp_path: Path) -> None:
    history = History(str(tmp_path / "h"), "s3cret")
    assert not history.add("my token is s3cret, see")
    assert not (tmp_path / "h").exists()


def test_a_file_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_text('"old"\n')
    path.chmod(0o644)
    History(str(path)).add("new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert History(str(path)).load() == ["old", "new"]


def test_it_is_bounded_and_forgives_what_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINES_MAX", 10)
    path = tmp_path / "h"
    lines = [json.dumps(f"line {n}") for n in range(100)]
    path.write_bytes("\n".join([*lines, "not json", "7"]).encode() + b"\n\xff\xfe\n")
    found = History(str(path)).load()
    assert len(found) == 10
    assert found[-1] == "line 99"
    assert path.read_text().splitlines() == [json.dumps(line) for line in found]
    assert [each.name for each in tmp_path.iterdir()] == ["h"]


@pytest.mark.parametrize("bad", ["link", "directory", "no directory"])
def test_what_cannot_be_kept_is_said_once(
    bad: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "h"
    if bad == "link":
        path.symlink_to(tmp_path / "victim")
    elif bad == "directory":
        path.mkdir()
    else:
        path = tmp_path / "not" / "there"
    history = History(str(path))
    with caplog.at_level(logging.WARNING):
        assert history.load() == []
        assert history.add("one")
        assert history.add("two")
    assert len(caplog.records) == 1
    assert not (tmp_path / "victim").exists()

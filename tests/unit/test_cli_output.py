"""What commands say: lines, tables, errors.  No process, no store."""

from __future__ import annotations

import io
import json
import logging

import pytest

from holdfast.cli import app, output
from holdfast.errors import DiskFullError, NotFoundError, UnknownLaneError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Not a fixture: capturing puts its own stream in place before each test."""
    shown = Terminal()
    monkeypatch.setattr("sys.stdout", shown)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return shown


def test_columns_are_aligned_and_nothing_is_coloured_in_a_pipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output.table(("KEY", "N"), [("a", 1), ("longer", None)])
    assert capsys.readouterr().out == "KEY     N\na       1\nlonger  -\n"


def test_an_empty_table_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("KEY",), [])
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_colours_unless_it_wants_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal(monkeypatch)
    assert output.paint("ok", "green") == "\x1b[32mok\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("ok", "green") == "ok"


def test_what_a_model_writes_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = terminal(monkeypatch)
    output.say("a\x1b]0;title\x07b\x1b[2Jc\x1b[31md\te\n")
    assert shown.getvalue() == "a\ufffd]0;title\ufffdb\ufffd[2Jc\x1b[31md\te\n\n"


def test_a_pipe_gets_it_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("a\x1b[2Jb")
    assert capsys.readouterr().out == "a\x1b[2Jb\n"


def test_long_and_many_lines_become_one_short_line() -> None:
    assert output.cut("one\n  two\x1b\tthree") == "one two three"
    assert output.cut("x" * 100, 10) == "x" * 9 + "…"


def test_an_error_is_one_line_what_where_hint() -> None:
    full = DiskFullError(path="/s/control.db", detail="disk\nfull")
    assert output.error_line(full) == (
        "disk\nfull (/s/control.db): free some space, then try again"
    )
    assert output.error_line(NotFoundError(what="turn", name="x")) == "no such turn: 'x'"


def test_an_error_is_told_to_people_and_on_request_to_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = UnknownLaneError(lane="x", known=["user"])
    assert output.fail(error, as_json=False) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert output.fail(error, as_json=True) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    found = json.loads(told.out)["error"]
    assert (found["code"], found["lane"], found["known"]) == ("unknown_lane", "x", ["user"])
    assert found["hint"]


def test_json_keeps_letters_and_takes_anything(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"a": "ü", "b": ValueError("x")})
    assert capsys.readouterr().out == '{"a": "ü", "b": "x"}\n'


def test_a_command_line_is_understood_before_it_is_parsed() -> None:
    call = app._Call.of(["send", "-v", "main", "--json", "--", "-v", "--json"])
    assert call.words == ["send", "main", "--json"]
    assert call.rest == ["--", "-v", "--json"]
    assert (call.as_json, call.verbose, call.command) == (True, True, "send")
    assert not app._Call.of(["send", "--", "--json"]).as_json
    assert app._Call.of(["--help"]).command is None


def test_a_bug_is_one_line_and_a_traceback_only_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(store: str | None) -> None:
        raise ZeroDivisionError(store)

    monkeypatch.setattr(output, "opened", broken)
    assert app.main(["sessions", "list", "--json"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("holdfast: ZeroDivisionError")
    assert told.err.count("\n") == 1
    assert json.loads(told.out)["error"]["code"] == "bug"
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    assert app.main(["sessions", "list"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_waits_are_quiet_for_one_command_only() -> None:
    log = logging.getLogger("holdfast.wait")
    with output.quiet_waits():
        assert not log.isEnabledFor(logging.WARNING)
    with output.quiet_waits(when=False):
        assert log.isEnabledFor(logging.WARNING)
    assert log.isEnabledFor(logging.WARNING)

"""Lone attempts among real processes: one line of windows, whatever becomes of who is in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast._core.verify import verify
from holdfast.backends.files.transcript.transcripts import read_tree

CHILD = Path(__file__).with_name("_attempt_child.py")


class Child:
    """A process with one attempt."""

    def __init__(self, path: Path | str, tag: str, *more: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), str(path), tag, *map(str, more)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def order(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def hear(self, *words: str) -> None:
        assert self.process.stdout is not None
        heard = self.process.stdout.readline().split()
        assert heard[: len(words)] == list(words), heard

    def do(self, word: str, *answer: str) -> None:
        self.order(word)
        self.hear(*answer)

    def asks(self) -> None:
        self.do("enter", "entered")
        self.do("ask", "asked")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGCONT)
            child.kill()
        for pipe in (child.process.stdin, child.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talk.jsonl"


def said(path: Path) -> list[str]:
    assert verify(path.read_bytes()).ok
    return [entry["message"]["content"] for entry in read_tree(str(path)).path()]


def test_windows_of_several_processes_open_in_the_order_in_which_they_asked(
    path: Path, children: list[Child]
) -> None:
    children += [Child(path, f"p{n}") for n in range(4)]
    for child in children:
        child.asks()
        child.order("open")
        child.hear(*(["open", "0"] if child is children[0] else ["in_line"]))
    for n, child in enumerate(children):
        if n:
            child.hear("open")
        child.do("close", "closed")
        child.do("reply", "replied")
        child.do("leave", "left")
    assert said(path) == [
        *(f"p{n} asks" for n in range(4)),
        *(f"p{n} is answered" for n in range(4)),
    ]


def test_a_process_killed_in_its_window_holds_up_nobody(
    path: Path, children: list[Child]
) -> None:
    children += [Child(path, "dies"), Child(path, "lives")]
    for child, word in zip(children, ("open", "in_line"), strict=True):
        child.asks()
        child.do("open", word)
    children[0].kill()
    children[1].hear("open")
    children[1].do("close", "closed")
    children[1].do("reply", "replied")
    assert said(path) == ["dies asks", "lives asks", "lives is answered"]


def test_a_process_killed_while_it_stands_in_line_is_passed_over(
    path: Path, children: list[Child]
) -> None:
    children += [Child(path, f"p{n}") for n in range(3)]
    for child, word in zip(children, ("open", "in_line", "in_line"), strict=True):
        child.asks()
        child.do("open", word)
    children[1].kill()
    children[0].do("close", "closed")
    children[0].do("leave", "left")
    children[2].hear("open")


def test_a_stopped_process_keeps_its_window_and_the_next_is_told_at_its_deadline(
    path: Path, children: list[Child]
) -> None:
    """It lives: nobody takes its place away.  It goes on as if nothing had happened."""
    children += [Child(path, "stopped"), Child(path, "patient", 0.2)]
    stopped, patient = children
    stopped.asks()
    stopped.do("open", "open", "0")
    os.kill(stopped.process.pid, signal.SIGSTOP)
    patient.asks()
    patient.do("open", "in_line")
    patient.hear("refused", "owner_wait")
    os.kill(stopped.process.pid, signal.SIGCONT)
    stopped.do("close", "closed", "1")
    stopped.do("reply", "replied")
    assert said(path)[-1] == "stopped is answered"


@pytest.mark.parametrize("way", ["hard link", "symlink", "dots"])
def test_another_name_of_the_file_is_the_same_line(
    path: Path, children: list[Child], way: str
) -> None:
    path.write_bytes(b'{"type":"session","version":3,"id":"s"}\n')
    other = path.with_name("other.jsonl")
    if way == "hard link":
        os.link(path, other)
    elif way == "symlink":
        other.symlink_to(path.name)
    else:
        (path.parent / "sub").mkdir()
        other = path.parent / "sub" / ".." / path.name
    children += [Child(path, "one"), Child(other, "two")]
    children[0].asks()
    children[0].do("open", "open")
    children[1].asks()
    children[1].do("open", "in_line")
    children[0].do("close", "closed")
    children[0].do("leave", "left")
    children[1].hear("open")


def test_two_files_are_two_lines(tmp_path: Path, children: list[Child]) -> None:
    children += [Child(tmp_path / f"{n}.jsonl", f"p{n}") for n in range(2)]
    for child in children:
        child.asks()
        child.do("open", "open", "0")

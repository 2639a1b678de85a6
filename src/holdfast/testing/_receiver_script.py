"""What a `Receiver` is told to do, and what it writes down about each request."""

from __future__ import annotations

import json
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Answer", "Received", "chaos", "decoded", "read_answers"]


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request is answered."""

    status: int = 200
    delay_s: float = 0.0  #: Before anything is processed.
    drop: Literal["before", "after"] | None = None
    late: bool = False
    retry_after: str | None = None
    when: str | None = None
    repeat: bool = False
    #: Set when a request waits here, and what it waits for: see `held`.
    reached: threading.Event | None = field(default=None, compare=False)
    gate: threading.Event | None = field(default=None, compare=False)

    def held(self) -> Answer:
        """One that waits, before anything is processed, until its `gate` is set."""
        return replace(self, reached=threading.Event(), gate=threading.Event())


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    key: str
    body_hash: str
    signed: bool | None  #: None: there is no secret to check with.
    told: dict[str, Any]  #: The body.
    processed: bool  #: For the first time, by this request.
    answer: Answer

    def line(self) -> dict[str, Any]:
        """For the log."""
        return {
            "key": self.key,
            "hash": self.body_hash,
            "to": self.told["to"],
            "signed": self.signed,
            "processed": self.processed,
            "status": self.answer.status,
            "drop": self.answer.drop,
            "late": self.answer.late,
        }


def decoded(body: bytes) -> dict[str, Any]:
    """The body, as far as it is a JSON object."""
    with suppress(ValueError):
        told = json.loads(body)
        if isinstance(told, dict):
            return {"to": "", **told}
    return {"to": ""}


def read_answers(text: str) -> list[Answer]:
    """
    A script, one JSON object a line.

    Raises:
        ValueError: names the line that is none.
    """
    known = {each.name for each in fields(Answer)} - {"reached", "gate"}
    answers = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            if not isinstance(told, dict) or not set(told) <= known:
                raise ValueError(f"only {', '.join(sorted(known))}")
            answers.append(Answer(**told))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return answers


def chaos(seed: int) -> Iterator[Answer]:
    """Answers without end: six in ten good, the others bad in all ways."""
    dice = random.Random(seed)  # noqa: S311  A seed is a run.
    bad = [
        Answer(500),
        Answer(503, retry_after="1"),
        Answer(429, retry_after="1"),
        Answer(drop="before"),
        Answer(drop="after"),
        Answer(late=True),
        Answer(delay_s=0.3),
    ]
    while True:
        yield dice.choice(bad) if dice.random() < 0.4 else Answer()

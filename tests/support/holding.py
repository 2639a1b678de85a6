"""Processes of `_holding_child.py`: told what to do, one thing at a time or all at once."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILD = Path(__file__).parents[1] / "e2e" / "_holding_child.py"


class Child:
    def __init__(self, state: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), str(state)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def tell(self, **asked: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ask(self, **asked: Any) -> dict[str, Any]:
        self.tell(**asked)
        return self.hear()


@contextmanager
def children(state: Path, count: int) -> Iterator[list[Child]]:
    """*count* processes with *state* open; gone afterwards."""
    made = [Child(state) for _ in range(count)]
    try:
        for each in made:
            assert each.hear() == {"ready": True}
        yield made
    finally:
        for each in made:
            each.process.kill()
            each.process.wait()
            for pipe in (each.process.stdin, each.process.stdout):
                if pipe is not None:
                    pipe.close()

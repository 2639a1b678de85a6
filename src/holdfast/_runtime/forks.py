"""What was opened belongs to the process that opened it: a forked child is told so."""

from __future__ import annotations

import os

from holdfast.errors import ForkedError

__all__ = ["Home"]


class Home:
    """The process in which this object was made."""

    def __init__(self, what: str) -> None:
        self._what, self._pid = what, os.getpid()

    @property
    def left(self) -> bool:
        """Whether this is a forked child of it."""
        return self._pid != os.getpid()

    def check(self) -> None:
        """Raises ForkedError in a forked child."""
        if self.left:
            raise ForkedError(
                what=self._what,
                hint="open your own in a process that was started, not forked"
                " (multiprocessing: spawn)",
            )

"""
What this process holds of all write locks, for those who must end it: watchdog and exits.

A claim is entered before it is linked and leaves after it is unlinked, so at no moment does
a claim of ours stand that is not in the roll.  Its value says who has it: the number of the
thread that is publishing it, later the hold (made by the same thread, in the same breath).

Who may touch: anybody, from any thread, and from a signal handler that interrupted any of
this.  So there is no mutex here, and every step is one operation on a dict, which the
interpreter does not interrupt.  Who withdraws a claim is decided elsewhere: the thread in
the roll, or the one that closed the hold (`tenure.py`), and nobody else.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from holdfast.backends.files import fs

if TYPE_CHECKING:
    from holdfast.backends.files.lock.claim import Claim
    from holdfast.backends.files.lock.tenure import Tenure

__all__ = ["Roll", "announce", "holds", "roll"]

POLL_S: Final = 0.0005


class Roll:
    """All of it; a forked child starts with an empty one."""

    __slots__ = ("claims", "leaving", "pid")

    def __init__(self) -> None:
        self.pid = fs.table.getpid()  #: A fork in C runs none of our hooks.
        self.claims: dict[Claim, Tenure | int] = {}
        self.leaving = 0  #: The thread that ends this process by a signal; 0: none does.


roll = Roll()


def announce(claim: Claim) -> None:
    """*claim*, entered, is about to be linked, and we are dying: does not return then."""
    us = threading.get_ident()
    while roll.leaving not in (0, us):
        roll.claims.pop(claim, None)
        fs.table.sleep(POLL_S)
        roll.claims[claim] = us


def holds() -> list[Tenure]:
    """Every hold of this process, those that end with a write under way included."""
    return [held for held in list(roll.claims.values()) if not isinstance(held, int)]


def _start_afresh() -> None:
    global roll  # noqa: PLW0603
    roll = Roll()


os.register_at_fork(after_in_child=_start_afresh)

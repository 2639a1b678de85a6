"""
What may be done about a stopped process that holds something others wait for.

It can be neither fenced nor passed over: only waited for, continued, or killed.  Killing is
for the operator to allow, and then only for processes of which everything is certain.

This file is the whole table: the first row that fits decides.  It is asked twice: when the
process is seen, and again after its pidfd is opened, with everything read anew.  From there
on the descriptor means this process, whatever becomes of its number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Facts", "Verdict", "What", "judge"]


class What(StrEnum):
    NOTHING = "nothing"  #: It keeps nobody waiting.
    REPORT = "report"  #: Tell of it; nothing more, however long it lasts.
    WAIT = "wait"  #: Tell of it; it is killed later.
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Facts:
    """None: nobody can tell, which is never taken for what would permit more."""

    stopped: bool | None  #: By a signal, or with its cgroup.
    same: bool | None  #: It is the process that was seen: its start time is the same.
    holds: bool | None  #: The store's gate, or a write lock.
    stopped_ms: int  #: For how long we have seen it so.
    kill: bool  #: `recovery.frozen_holder`
    kill_ms: int  #: `recovery.frozen_kill_ms`
    ourselves: bool
    registered: bool  #: An owner of this store, by pid, start time and boot.
    same_namespace: bool | None  #: Its pid means the same to us.
    same_user: bool | None
    traced: bool | None  #: A debugger has it: it is stopped because somebody looks at it.


@dataclass(frozen=True, slots=True)
class Verdict:
    what: What
    reason: str


def judge(facts: Facts) -> Verdict:
    for row, what, reason in (
        (facts.stopped is False, What.NOTHING, "runs"),
        (facts.stopped is None, What.NOTHING, "unknown"),
        (facts.same is not True, What.NOTHING, "another_process"),
        (facts.holds is not True, What.NOTHING, "holds_nothing"),
        (not facts.kill, What.REPORT, "setting"),
        (facts.ourselves, What.REPORT, "ourselves"),
        (not facts.registered, What.REPORT, "stranger"),
        (facts.same_namespace is not True, What.REPORT, "other_namespace"),
        (facts.same_user is not True, What.REPORT, "other_user"),
        (facts.traced is not False, What.REPORT, "traced"),
        (facts.stopped_ms < facts.kill_ms, What.WAIT, "not_yet"),
    ):
        if row:
            return Verdict(what, reason)
    return Verdict(What.KILL, "too_long")

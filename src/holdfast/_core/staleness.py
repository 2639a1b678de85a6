"""
What may be done about a claim that stands where we want to put ours.

Facts come from the backend; the verdict comes from here, with the label of its row, so that
a log line and a review can argue about "@H".  The first row whose cells are all met decides;
the last row has none, so there is always one.

*wait*: nothing is wrong with it.  *report*: a live owner overstays, or nobody can prove it
dead; a waiter is told at its deadline (at once with fail_fast) and the claim stays.
*reclaim*: it is proven dead, and whoever holds the latch removes it.

- @L: whoever writes our claims holds the latch until its claim is gone.  The kernel gave the
  latch to us, so that owner has no descriptor left: it is dead, or gave up removing it.  Its
  pid says nothing more, in whatever namespace it counted.
- @I: our own process left it, and the one hold that could be it is us, now.
- @M: somebody else of ours has got the latch and is about to replace it.
- @K: the process is dead and its latch is held all the same: by a child that inherited the
  descriptor.  That child may still write.
- @C, @D, @E: no process outlives its boot; a pid that nobody has is nobody; a pid that
  started at another time is somebody else's.  One machine's word for it, so only where no
  other machine can be meant; elsewhere the same witnesses give @N.
- @J: names nobody.  It may be half a founding claim, whose writer died between creating and
  writing; or a stranger's lock file that never says anything and is not kept open.  No
  witness tells these apart, so it is never removed here, only reported.
- @F, @G, @H: somebody of this machine who lives.
- @A, @B: somebody of whom we cannot know: another host, another namespace, no witness.

Age alone never removes a claim, in any row: it only turns *wait* into *report*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["REASONS", "ROWS", "ClaimFacts", "LatchIs", "ProcessIs", "Row", "Verdict"]
__all__ += ["reasons", "verdict"]

Verdict = Literal["wait", "report", "reclaim"]

#: Ours to decide under; held by nobody; held by the claim's owner, or by whoever has its
#: descriptor; held by another live process; not known.
LatchIs = Literal["mine", "free", "owner", "another", "?"]

#: Nobody has the pid; somebody who started later has it; it is the very process; somebody
#: has the pid whose start time cannot be compared; not known.
ProcessIs = Literal["gone", "recycled", "itself", "unsure", "?"]


@dataclass(frozen=True, slots=True)
class ClaimFacts:
    """What is known about a standing claim.  None = it cannot be known ("?")."""

    readable: bool | None  #: Names a pid; False: what is there names none; None: unreadable.
    ours: bool  #: Written by a Holdfast.
    latch: LatchIs
    local: bool  #: The file system belongs to this machine alone.
    host: bool | None  #: Of this host.
    boot: bool | None  #: Of this boot.
    namespace: bool | None  #: Its pid is one that we can look up.
    process: ProcessIs
    us: bool  #: The very process that judges.
    past_promise: bool  #: Stands longer than it promised; if it names nobody: than the grace.
    past_age: bool  #: Stands longer than any claim should, by the waiter's setting.

    @property
    def overdue(self) -> bool:
        return self.past_promise or self.past_age

    @property
    def held(self) -> bool:
        """It is ours, and somebody has its latch."""
        return self.ours and self.latch in {"owner", "another"}

    @property
    def dead(self) -> bool:
        """What the witnesses say, if they are this machine's."""
        if self.readable is None or self.host is not True:
            return False
        if self.boot is False:
            return True
        named = self.readable is True and self.namespace is True
        return named and self.process in {"gone", "recycled"}


Cells = tuple[tuple[str, tuple[object, ...]], ...]  #: (fact, the values it may have), …


def _cells(**cells: object) -> Cells:
    return tuple(
        (fact, was if isinstance(was, tuple) else (was,)) for fact, was in cells.items()
    )


@dataclass(frozen=True, slots=True)
class Row:
    label: str
    verdict: Verdict
    cells: Cells  #: Facts that are not named are not looked at.
    says: str  #: For people.


_OUR_PID: Final = {"readable": True, "host": True, "namespace": True, "boot": (True, None)}
_DEAD_PID: Final = ("gone", "recycled")

#: In order; the first row whose cells are met decides.
ROWS: Final = (
    Row("@L", "reclaim", _cells(ours=True, latch=("mine", "free"), local=True, boot=True),
        "its owner let go of the latch and left it behind"),
    Row("@I", "reclaim", _cells(ours=True, latch="mine", us=True),
        "this very process left it behind"),
    Row("@M", "wait", _cells(ours=True, latch="another"),
        "somebody else has the latch and is about to replace it"),
    Row("@K", "report", _cells(**_OUR_PID, ours=True, latch="owner", process=_DEAD_PID),
        "its owner is dead; a child that inherited the descriptor holds the kernel's lock"),
    Row("@C", "reclaim", _cells(host=True, boot=False, local=True, held=False,
                                readable=(True, False)),
        "it is from before the machine was started"),
    Row("@D", "reclaim", _cells(**_OUR_PID, process="gone", local=True),
        "its owner is dead"),
    Row("@E", "reclaim", _cells(**_OUR_PID, process="recycled", local=True),
        "its owner is dead, and another process has its pid"),
    Row("@N", "report", _cells(dead=True, local=False, held=False),
        "its owner is dead, unless another machine that shares the file system is meant"),
    Row("@J", "report", _cells(readable=(False, None), overdue=True),
        "it names nobody"),
    Row("@F", "report", _cells(**_OUR_PID, process="unsure", overdue=True),
        "it overstays, and its pid is alive; whether that is its owner cannot be told"),
    Row("@H", "report", _cells(**_OUR_PID, process="itself", overdue=True),
        "its owner is alive and overstays"),
    Row("@G", "wait", _cells(**_OUR_PID, process=("itself", "unsure"), overdue=False),
        "its owner is alive and within its promise"),
    Row("@B", "report", _cells(overdue=True),
        "it overstays, and whether its owner lives cannot be known from here"),
    Row("@A", "wait", _cells(),
        "whether its owner lives cannot be known from here"),
)  # fmt: skip

#: code → (when it is said, what it means).  In the order in which they are said.
REASONS: Final[dict[str, tuple[Cells, str]]] = {
    "unlatched": (
        _cells(ours=True, latch=("mine", "free"), local=True),
        "nobody holds its latch",
    ),
    "own_leak": (_cells(ours=True, latch="mine", us=True), "this process left it"),
    "being_replaced": (_cells(ours=True, latch="another"), "its latch has passed on"),
    "inherited_descriptor": (
        _cells(**_OUR_PID, ours=True, latch="owner", process=_DEAD_PID),
        "held by a descriptor that a child inherited",
    ),
    "other_boot": (_cells(boot=False), "from before the machine was started"),
    "dead_pid": (_cells(process="gone"), "nobody has its pid"),
    "recycled_pid": (_cells(process="recycled"), "its pid is another process's by now"),
    "unreadable": (_cells(readable=None), "it may not or cannot be read"),
    "missing_pid": (_cells(readable=False), "it names no pid"),
    "other_host": (_cells(host=False), "it names another host"),
    "other_namespace": (_cells(namespace=False), "its pid counts in another pid namespace"),
    "unknown_namespace": (
        _cells(readable=True, namespace=None),
        "whose pid namespace it counts in is not said, and we do not see them all",
    ),
    "unknown_start": (_cells(process="unsure"), "its pid lives; the start time is not known"),
    "shared_filesystem": (_cells(local=False), "other machines may hold it"),
    "hold_exceeded": (
        _cells(readable=True, past_promise=True),
        "it stands longer than its owner promised",
    ),
    "too_old": (_cells(past_age=True), "it is older than stale_ms"),
}


def verdict(facts: ClaimFacts) -> Row:
    """The row that *facts* fall under.  Total: the last row needs nothing."""
    return next(row for row in ROWS if _met(row.cells, facts))


def reasons(facts: ClaimFacts) -> tuple[str, ...]:
    """What speaks against a claim, in one word each.  Empty: nothing does."""
    return tuple(code for code, (cells, _) in REASONS.items() if _met(cells, facts))


def _met(cells: Cells, facts: ClaimFacts) -> bool:
    return all(getattr(facts, fact) in values for fact, values in cells)

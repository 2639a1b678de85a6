"""
An attempt's life on one transcript: what it holds, and how it gives everything back.

    NEW → ENTERING → HELD ──PROMPT→ JOINING ──first──────────────→ OPENING → WINDOW
                      │ ↑              └─busy→ YIELDING → IN_LINE → REJOINING ┘ │
                      │ └ RESUMING ← RESTING ← STEPPING ←REST─┘              BACK│
                      └DISPOSE→ LEAVING → GONE      PLACED ← RETURNING ←─────────┘

Two things can be held: the *write lock* (HOLDS) and a *place* in the line of prompt windows
(HAS_PLACE).  The place is asked for with the first prompt and kept until the attempt is over:
so nobody's prompt is built on a history that somebody else's window is about to extend.

No I/O, no clock, no asyncio.  `_runtime.controller` performs the effects; OPEN and CLOSE are
themselves runs of the machine in `_core.window`, which leave the lock given back or had.

Rules
-----
1. One effect is in flight at a time and is always answered: OK, BAD (it did not happen),
   UNKNOWN (nobody can tell); JOIN also BUSY (somebody is before us), CLOSE also LATE.
2. DISPOSE never overtakes an effect in flight: it is remembered, and spent on the answer.
3. HOLDS and HAS_PLACE are the only places that say what a state owns.  Every way out is
   derived from them: what is held is given back, the lock first, the place last, each once.
4. RESTING is a wait that is no prompt (compaction): it has no place of its own and asks for
   none, so it queues nobody (#86067).
5. LATE is contention, not a takeover: the lock was not had in time, or nobody waits for it
   any more.  The attempt is ADRIFT: it keeps its place and its mark, and may try again.
6. A way out that cannot give the lock back reports a leak, and vacates all the same (#89811).
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FINAL", "HAS_PLACE", "HOLDS", "TABLE", "AttemptState", "Effect", "Life", "Signal"]


class AttemptState(Enum):
    NEW = auto()  #: Nothing held.
    ENTERING = auto()  #: Nothing held until the acquisition is answered.
    HELD = auto()  #: The lock; no place asked for yet.
    JOINING = auto()  #: The lock; a place is being asked for.
    YIELDING = auto()  #: In line, but not the first: the lock is being given back.
    IN_LINE = auto()  #: A place in line, no lock: others' windows are before ours.
    REJOINING = auto()  #: First in line; the lock is being taken back, and compared.
    OPENING = auto()  #: First in line; the window is being opened.
    WINDOW = auto()  #: First in line, no lock: the model streams, tools run.
    RETURNING = auto()  #: The window is being closed.
    PLACED = auto()  #: The lock, and first in line: finished entries may be appended.
    ADRIFT = auto()  #: First in line; the lock was not had in time.  May try again.
    STEPPING = auto()  #: The lock is being given back for a rest; no place.
    RESTING = auto()  #: Nothing held: a wait that is no prompt.
    RESUMING = auto()  #: The lock is being taken back after a rest; no place.
    STEPPING_PLACED = auto()  #: As STEPPING, with a place.
    RESTING_PLACED = auto()  #: As RESTING, with a place.
    RESUMING_PLACED = auto()  #: As RESUMING, with a place.
    LEAVING = auto()  #: The lock until its release is answered; a place, perhaps.
    GONE = auto()  #: Nothing held.  Final.


class Signal(Enum):
    ENTER = auto()  #: Caller: begin.
    PROMPT = auto()  #: Caller: a prompt is ready.
    REST = auto()  #: Caller: a wait that is no prompt.
    BACK = auto()  #: Caller: the stream, or the rest, is over; or once more, from ADRIFT.
    DRIFT = auto()  #: Caller: the stream was torn off; nobody waits for the lock now.
    DISPOSE = auto()  #: Caller: it is over, whatever it was.
    OK = auto()  #: Answer: done.
    BUSY = auto()  #: Answer to JOIN: in line, and not the first.
    LATE = auto()  #: Answer to CLOSE: contention; the lock was not had in time.
    BAD = auto()  #: Answer: it did not happen; what the effect was about is not held.
    UNKNOWN = auto()  #: Answer: nobody can tell.


class Effect(Enum):
    ACQUIRE = auto()
    RELEASE = auto()  #: Names our own claim: releasing what we never got is harmless.
    JOIN = auto()  #: Stand in line; OK if nobody is before us.
    WAIT = auto()  #: Until we are the first in line.
    OPEN = auto()  #: Leave a mark, give the lock back.
    CLOSE = auto()  #: Take the lock back, compare.
    VACATE = auto()  #: Give the place up.  Cannot fail; not answered.
    REPORT_LEAK = auto()  #: Our claim may outlive us.  Not answered.


Step = tuple[AttemptState, tuple[Effect, ...]]
_S = AttemptState

_OPEN: Final = (Effect.OPEN,)
_CLOSE: Final = (Effect.CLOSE,)
_RELEASE: Final = (Effect.RELEASE,)
_VACATE: Final = (Effect.VACATE,)

#: A blank cell is a disagreement between performer and table.
TABLE: Final[Mapping[AttemptState, Mapping[Signal, Step]]] = {
    _S.NEW: {Signal.ENTER: (_S.ENTERING, (Effect.ACQUIRE,))},
    _S.ENTERING: {
        Signal.OK: (_S.HELD, ()),
        Signal.BAD: (_S.GONE, ()),
        Signal.UNKNOWN: (_S.LEAVING, _RELEASE),
    },
    _S.HELD: {
        Signal.PROMPT: (_S.JOINING, (Effect.JOIN,)),
        Signal.REST: (_S.STEPPING, _OPEN),
    },
    _S.JOINING: {
        Signal.OK: (_S.OPENING, _OPEN),
        Signal.BUSY: (_S.YIELDING, _OPEN),
        Signal.BAD: (_S.HELD, ()),
    },
    _S.YIELDING: {Signal.OK: (_S.IN_LINE, (Effect.WAIT,)), Signal.BAD: (_S.GONE, _VACATE)},
    _S.IN_LINE: {Signal.OK: (_S.REJOINING, _CLOSE), Signal.BAD: (_S.GONE, _VACATE)},
    _S.REJOINING: {
        Signal.OK: (_S.OPENING, _OPEN),
        Signal.LATE: (_S.ADRIFT, ()),
        Signal.BAD: (_S.GONE, _VACATE),
    },
    _S.OPENING: {Signal.OK: (_S.WINDOW, ()), Signal.BAD: (_S.GONE, _VACATE)},
    _S.WINDOW: {Signal.BACK: (_S.RETURNING, _CLOSE), Signal.DRIFT: (_S.ADRIFT, ())},
    _S.RETURNING: {
        Signal.OK: (_S.PLACED, ()),
        Signal.LATE: (_S.ADRIFT, ()),
        Signal.BAD: (_S.GONE, _VACATE),
    },
    _S.PLACED: {
        Signal.PROMPT: (_S.OPENING, _OPEN),
        Signal.REST: (_S.STEPPING_PLACED, _OPEN),
    },
    _S.ADRIFT: {Signal.BACK: (_S.RETURNING, _CLOSE)},
    _S.STEPPING: {Signal.OK: (_S.RESTING, ()), Signal.BAD: (_S.GONE, ())},
    _S.RESTING: {Signal.BACK: (_S.RESUMING, _CLOSE)},
    _S.RESUMING: {
        Signal.OK: (_S.HELD, ()),
        Signal.LATE: (_S.RESTING, ()),
        Signal.BAD: (_S.GONE, ()),
    },
    _S.STEPPING_PLACED: {
        Signal.OK: (_S.RESTING_PLACED, ()),
        Signal.BAD: (_S.GONE, _VACATE),
    },
    _S.RESTING_PLACED: {Signal.BACK: (_S.RESUMING_PLACED, _CLOSE)},
    _S.RESUMING_PLACED: {
        Signal.OK: (_S.PLACED, ()),
        Signal.LATE: (_S.RESTING_PLACED, ()),
        Signal.BAD: (_S.GONE, _VACATE),
    },
    _S.LEAVING: {
        Signal.OK: (_S.GONE, _VACATE),
        Signal.BAD: (_S.GONE, (Effect.REPORT_LEAK, Effect.VACATE)),
        Signal.UNKNOWN: (_S.GONE, (Effect.REPORT_LEAK, Effect.VACATE)),
    },
    _S.GONE: {},
}

#: The lock is ours.  While OPEN or CLOSE runs it is the window machine that knows.
HOLDS: Final = frozenset({_S.HELD, _S.JOINING, _S.PLACED, _S.LEAVING})
#: We stand in the line of windows.  LEAVING may or may not; vacating is idempotent there.
HAS_PLACE: Final = frozenset(
    {
        _S.YIELDING,
        _S.IN_LINE,
        _S.REJOINING,
        _S.OPENING,
        _S.WINDOW,
        _S.RETURNING,
        _S.PLACED,
        _S.ADRIFT,
        _S.STEPPING_PLACED,
        _S.RESTING_PLACED,
        _S.RESUMING_PLACED,
        _S.LEAVING,
    }
)
FINAL: Final = frozenset({_S.GONE})
_ANSWERED: Final = frozenset(state for state, row in TABLE.items() if Signal.OK in row)


class Life:
    """One attempt.  Feed it signals; perform the effects it returns."""

    __slots__ = ("disposing", "state")

    def __init__(self) -> None:
        self.state = AttemptState.NEW
        self.disposing = False

    @property
    def settled(self) -> bool:
        """Nothing is in flight: the caller may go on, or there is nowhere to go."""
        return self.state not in _ANSWERED

    def allows(self, signal: Signal) -> bool:
        """Whether a caller's *signal* has a cell here."""
        return signal in TABLE[self.state]

    def receive(self, signal: Signal) -> tuple[Effect, ...]:
        """
        Take one step.  Of the effects returned, at most the last is answered.

        Raises:
            AssertionError: *signal* has no cell in this state.  The state is unchanged.
        """
        cell = TABLE[self.state].get(signal)
        assert cell is not None, f"{signal.name} in {self.state.name}"
        landing, effects = cell
        if self.disposing and landing not in {AttemptState.GONE, AttemptState.LEAVING}:
            landing, effects = _way_out(landing, effects)
        self.state = landing
        return effects

    def dispose(self) -> tuple[Effect, ...]:
        """Give everything back by the shortest safe way.  Idempotent; from every state."""
        if self.disposing or self.state in FINAL:
            return ()
        self.disposing = True
        if self.state in _ANSWERED:
            return ()
        self.state, effects = _way_out(self.state, ())
        return effects


def _way_out(landing: AttemptState, asked: tuple[Effect, ...]) -> Step:
    """
    From *landing*, which wanted to go on with *asked*, none of which has begun.

    What OPEN was to give back is still held; what CLOSE was to take back is not.
    """
    if landing in HOLDS or Effect.OPEN in asked:
        return AttemptState.LEAVING, _RELEASE
    return AttemptState.GONE, _VACATE if landing in HAS_PLACE else ()

"""
The prompt window: giving the write lock up while a model talks, and taking it back.

An attempt holds its session's write lock to load the history and to append; a model call
lasts seconds to minutes and must not hold it.  So the attempt leaves a *mark* (how far the
transcript went), gives the lock back, lets the model stream and its tools run, takes the
lock again, and asks what has happened since.

    HELD ─OPEN→ MARKING → RELEASING → OPEN ─CLOSE→ RETAKING → COMPARING → RETURNED
                    └─────────┴──→ LEAVING ←───────────┴───────────┘
                                      └→ LEFT ← OPEN (abort), RETAKING (refused)

No I/O, no clock, no asyncio: `_runtime.window` performs the effects, the tests perform the
same effects against a made-up world, and neither decides anything.

Rules
-----
1. One effect is in flight at a time, and it is always answered: OK (it happened), BAD (it did
   not), UNKNOWN (nobody can tell).  COMPARE answers with what happened to the transcript.
2. An abort never overtakes an effect in flight; it is remembered and spent on the answer.
3. HOLDS says which states own the lock.  Every way out is derived from it.
4. OPEN, the one state that may last minutes, holds nothing.  Tokens stream and tools run
   in it, not only the call's creation (the founding window covered no more than that).
5. RETAKING may be slow without being refused: a finished reply is worth waiting for.  It is
   stored where a successor finds it (KEEP), once, and the wait goes on.
6. APPENDED is not a takeover: what others appended is kept, and ours goes after it.  Only
   REWRITTEN is: then nothing is appended and the lock is given back.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FINAL", "HOLDS", "TABLE", "Effect", "Signal", "State", "Window"]


class State(Enum):
    HELD = auto()  #: Lock held; nothing asked for yet.
    MARKING = auto()  #: Lock held; the mark is being taken.
    RELEASING = auto()  #: Lock held until its release is answered.
    OPEN = auto()  #: Nothing held.  The model streams, tools run.
    RETAKING = auto()  #: Nothing held until the acquisition is answered.
    COMPARING = auto()  #: Lock held; the transcript is being compared with the mark.
    RETURNED = auto()  #: Lock held; the attempt may append.  Final.
    LEAVING = auto()  #: Lock held until its release is answered; the way out.
    LEFT = auto()  #: Nothing held.  Final.


class Signal(Enum):
    OPEN = auto()  #: Caller: the prompt is ready.
    CLOSE = auto()  #: Caller: the model has finished.
    OK = auto()  #: Answer: done.  To COMPARE: the transcript is the same.
    APPENDED = auto()  #: Answer to COMPARE: others appended behind the mark.
    REWRITTEN = auto()  #: Answer to COMPARE: what the mark stood on is gone.
    SLOW = auto()  #: Answer to ACQUIRE: not within the settle bound; still waiting.
    BAD = auto()  #: Answer: it did not happen.
    UNKNOWN = auto()  #: Answer: nobody can tell.


class Effect(Enum):
    TAKE_MARK = auto()
    RELEASE = auto()  #: Names our own claim: releasing what we never got is harmless.
    ACQUIRE = auto()
    COMPARE = auto()
    KEEP = auto()  #: Store the finished reply in the turn's row.  Not answered.
    REPORT_LEAK = auto()  #: Our claim may outlive us.  Not answered.


_RELEASE: Final = (Effect.RELEASE,)

# A blank cell is a disagreement between performer and table.
TABLE: Final[Mapping[State, Mapping[Signal, tuple[State, tuple[Effect, ...]]]]] = {
    State.HELD: {Signal.OPEN: (State.MARKING, (Effect.TAKE_MARK,))},
    State.MARKING: {
        Signal.OK: (State.RELEASING, _RELEASE),
        Signal.BAD: (State.LEAVING, _RELEASE),
    },
    State.RELEASING: {
        Signal.OK: (State.OPEN, ()),
        Signal.BAD: (State.LEAVING, _RELEASE),
        Signal.UNKNOWN: (State.LEAVING, _RELEASE),
    },
    State.OPEN: {Signal.CLOSE: (State.RETAKING, (Effect.ACQUIRE,))},
    State.RETAKING: {
        Signal.OK: (State.COMPARING, (Effect.COMPARE,)),
        Signal.SLOW: (State.RETAKING, (Effect.KEEP, Effect.ACQUIRE)),
        Signal.BAD: (State.LEFT, ()),
        Signal.UNKNOWN: (State.LEAVING, _RELEASE),
    },
    State.COMPARING: {
        Signal.OK: (State.RETURNED, ()),
        Signal.APPENDED: (State.RETURNED, ()),
        Signal.REWRITTEN: (State.LEAVING, _RELEASE),
        Signal.BAD: (State.LEAVING, _RELEASE),
    },
    State.LEAVING: {
        Signal.OK: (State.LEFT, ()),
        Signal.BAD: (State.LEFT, (Effect.REPORT_LEAK,)),
        Signal.UNKNOWN: (State.LEFT, (Effect.REPORT_LEAK,)),
    },
    State.RETURNED: {},
    State.LEFT: {},
}

HOLDS: Final = frozenset(
    {
        State.HELD,
        State.MARKING,
        State.RELEASING,
        State.COMPARING,
        State.RETURNED,
        State.LEAVING,
    }
)
FINAL: Final = frozenset(state for state, row in TABLE.items() if not row)
_ANSWERED: Final = frozenset(state for state, row in TABLE.items() if Signal.OK in row)


class Window:
    """One window of one attempt.  Feed it signals; perform the effects it returns."""

    __slots__ = ("aborting", "state")

    def __init__(self, state: State = State.HELD) -> None:
        assert state in {State.HELD, State.OPEN}, state  # OPEN: once more, after a refusal.
        self.state: State = state
        self.aborting = False

    def receive(self, signal: Signal) -> tuple[Effect, ...]:
        """
        Take one step.  Of the effects returned, at most the last is answered.

        Raises:
            AssertionError: *signal* has no cell in this state.  The state is unchanged.
        """
        cell = TABLE[self.state].get(signal)
        assert cell is not None, f"{signal.name} in {self.state.name}"
        landing, effects = cell
        if self.aborting and landing is not State.LEFT:
            landing, effects = _way_out(landing)
        self.state = landing
        return effects

    def abort(self) -> tuple[Effect, ...]:
        """Leave by the shortest safe way.  Idempotent; does nothing once final."""
        if self.aborting or self.state in FINAL:
            return ()
        self.aborting = True
        if self.state in _ANSWERED:
            return ()
        self.state, effects = _way_out(self.state)
        return effects


def _way_out(state: State) -> tuple[State, tuple[Effect, ...]]:
    return (State.LEAVING, _RELEASE) if state in HOLDS else (State.LEFT, ())

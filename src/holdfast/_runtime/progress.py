"""
What a run is at, and when it last moved: fed by the run, read by the keeper's thread.

Each field is written by the run's loop alone and is one reference; a reader takes a `seen`
in one go and may miss the last movement, never invent one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from holdfast._core.recovery import Facts, State, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.types import FencingToken, Turn

__all__ = ["Judged", "OwnRun", "Progress", "RunningTool"]

FINISHED: Final = "run:completed"


@dataclass(frozen=True, slots=True)
class RunningTool:
    name: str
    call_id: str
    timeout_s: float
    since_s: float


class Progress:
    """
    Args:
        now_s: a monotonic clock.
    """

    __slots__ = ("_asking", "_children", "_now_s", "_own", "_tools", "at_s", "since_s", "what")

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._asking = self._own = False
        self._children = 0
        self._tools: dict[str, RunningTool] = {}
        self.since_s = self.at_s = now_s()
        self.what = "run:started"  #: The last movement, in words.

    @property
    def kind(self) -> str:
        """``model``, ``tool``, ``program`` (`hf.turn`: its caller answers it) or ``idle``."""
        if self._own:
            return "program"
        return "tool" if self._tools else "model" if self._asking else "idle"

    def asked(self) -> None:
        """A model call begins."""
        self._asking = True
        self._moved("model:asked")

    def bytes_came(self) -> None:
        """Something came from the model."""
        self._moved("model:stream")

    def answered(self) -> None:
        """The model call is over: its last word, or its failure."""
        self._asking = False
        if self.what != FINISHED:
            self._moved("model:ended")

    def finished(self) -> None:
        """There is an answer; what is left is to write it down."""
        self._asking = False
        self._moved(FINISHED)

    def tool_began(self, name: str, call_id: str, timeout_s: float) -> None:
        tool = RunningTool(name, call_id, timeout_s, self._now_s())
        self._tools = {**self._tools, call_id: tool}
        self._moved(f"tool:{name}:started")

    def tool_ended(self, name: str, call_id: str) -> None:
        self._tools = {n: t for n, t in self._tools.items() if n != call_id}
        self._moved(f"tool:{name}:ended")

    def used(self) -> None:
        """The program of an own turn did something with it: nothing else is told of one."""
        self._own = True
        self._moved("program:used")

    def waits_for_child(self, change: int) -> None:
        """An own turn has asked for another one, and waits: that one is judged, not this."""
        self._children += change
        self.used()

    def _moved(self, what: str) -> None:
        self.at_s, self.what = self._now_s(), what

    # -------------------------------------------------------------- for the keeper's thread

    def tool(self) -> RunningTool | None:
        """The running tool that has the most time left."""
        tools = self._tools  # One reference: its values do not change.
        return max(tools.values(), key=lambda t: t.since_s + t.timeout_s, default=None)

    def facts(self, *, queue_depth: int, late_at_s: float, loop_late: bool) -> Facts:
        """
        Args:
            late_at_s: when our own loop was last late; what it missed is nobody's fault.
        """
        tool, now_s = self.tool(), self._now_s()
        work = Work.TOOL if tool else Work.MODEL if self._asking else Work.RUN
        return Facts(
            State.PROCESSING, queue_depth, work, now_s - self.since_s,
            0.0 if self._children else now_s - max(self.at_s, late_at_s),
            now_s - max(tool.since_s, late_at_s - tool.timeout_s) if tool else None,
            tool.timeout_s if tool else None,
            terminal=self.what == FINISHED,
            loop_late=loop_late,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """For `leases.progress`: ages, because no clock is compared across processes."""
        now_s, tool = self._now_s(), self.tool()
        told: dict[str, Any] = {
            "kind": self.kind, "what": self.what,
            "age_ms": round((now_s - self.at_s) * 1000),
            "run_ms": round((now_s - self.since_s) * 1000),
        }  # fmt: skip
        if tool is not None:
            told["tool"] = tool.name
            told["tool_ms"] = round((now_s - tool.since_s) * 1000)
            told["tool_timeout_ms"] = round(tool.timeout_s * 1000)
        return told


class Judged(Protocol):
    """What is judged by its progress: an agent's `Run`, or an `OwnRun`."""

    @property
    def turn(self) -> Turn: ...
    @property
    def token(self) -> FencingToken: ...
    @property
    def progress(self) -> Progress: ...


@dataclass(frozen=True, slots=True, eq=False)
class OwnRun:
    """An own turn's block."""

    turn: Turn
    token: FencingToken
    progress: Progress

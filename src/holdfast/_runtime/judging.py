"""
Judging this process's own runs by their progress, and doing what the table permits.

    warn    one line in the log and an event, ever more seldom
    abort   the run is asked to end, on its own loop, an own turn by an abort row; if it has
            not let go of its lease within the settle bound it is fenced, and recovery closes
            it.  The process lives on.

Facts and effects only; `_core.recovery` decides.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from holdfast._core import recovery
from holdfast._core.recovery import Bounds, Remedy
from holdfast.errors import HoldfastError
from holdfast.types import FencingToken, Standing

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from holdfast._core.recovery import Facts, Verdict
    from holdfast._core.settings import Settings
    from holdfast._runtime.progress import Judged
    from holdfast._runtime.pulse import Pulse
    from holdfast._runtime.reaping import Reaper
    from holdfast.ports import Store
    from holdfast.types import TurnId

__all__ = ["Judge"]

#: Beside the settle bound: for the run to see that it was asked, and to book its end.
GRACE_S: Final = 1.0

_log = logging.getLogger("holdfast.recovery")


class Judge:
    """
    Bound to the keeper's loop.

    Args:
        loop: where the runs live.
        running: the runs of this process; any thread.
        abort: asks a run to end, on *loop*.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        pulse: Pulse,
        reaper: Reaper,
        *,
        running: Callable[[], Sequence[Judged]],
        abort: Callable[[TurnId, str], None],
    ) -> None:
        self._store, self._loop, self._pulse, self._reaper = store, loop, pulse, reaper
        self._running, self._abort = running, abort
        self._settle_s = settings.settle_ms / 1000
        self._bounds = Bounds(
            warn_s=settings.stuck_warn_ms / 1000,
            abort_s=settings.progress_timeout_ms / 1000,
            idle_s=settings.idle_timeout_ms / 1000,
            max_s=settings.max_ms / 1000,
        )
        #: Run → what was told of it, and at which age it is told again.
        self._told: dict[Judged, tuple[str, float]] = {}
        self._asked: dict[Judged, tuple[float, str]] = {}  #: To end: since when, and why.

    async def look(self) -> None:
        """Once over all runs; costs microseconds each unless there is something to tell."""
        runs = self._running()
        for gone in self._told.keys() - set(runs):
            del self._told[gone]
        for gone in self._asked.keys() - set(runs):
            del self._asked[gone]
        for run in runs:
            if run in self._asked:
                self._fence_if_deaf(run)
            elif recovery.judge(self._facts(run, 0), self._bounds).told != "ok":
                facts = self._facts(run, await self._queue_depth(run))
                await self._act(run, facts, recovery.judge(facts, self._bounds))

    def _facts(self, run: Judged, queue_depth: int) -> Facts:
        pulse = self._pulse
        return run.progress.facts(
            queue_depth=queue_depth, late_at_s=pulse.late_at_s, loop_late=pulse.late
        )

    async def _act(self, run: Judged, facts: Facts, verdict: Verdict) -> None:
        told, again_s = self._told.get(run, ("", 0.0))
        if told != verdict.reason or facts.age_s >= again_s or verdict.abort is not None:
            next_s = recovery.next_age_s(facts.age_s, self._bounds.warn_s)
            self._told[run] = (verdict.reason, next_s)
            await self._tell(run, facts, verdict)
        if verdict.abort is not None:
            self._asked[run] = (time.monotonic(), verdict.abort)
            self._loop.call_soon_threadsafe(self._abort, run.turn.turn_id, verdict.abort)

    async def _tell(self, run: Judged, facts: Facts, verdict: Verdict) -> None:
        level = logging.INFO if verdict.remedy is Remedy.NONE else logging.WARNING
        _log.log(level, "%s", _in_words(run, facts, verdict))
        if verdict.remedy is Remedy.NONE:
            return
        told = {
            "class": verdict.classification,
            "reason": verdict.reason,
            "recovery": verdict.remedy.value,
        }
        try:
            await self._store.control.note(
                "stuck", self._store.owner.owner_id, session_id=run.turn.session_id,
                turn_id=run.turn.turn_id, data=told,
            )  # fmt: skip
        except HoldfastError as error:
            _log.info("not noted: %s", error)

    def _fence_if_deaf(self, run: Judged) -> None:
        since_s, reason = self._asked[run]
        turn, settled_s = run.turn, self._settle_s + GRACE_S
        if self._pulse.late or time.monotonic() - since_s < settled_s:
            return
        held = self._store.control.newest_token(turn.session_id)
        me = self._store.owner.owner_id
        if held is None or held != (run.token, me):
            return  # It has let go of its lease, or somebody else has fenced it.
        _log.warning("turn %s: did not end within the settle bound: fenced", turn.turn_id)
        token = FencingToken(held[0])
        lease = Standing(turn.session_id, turn.turn_id, token, me, recovering=False)
        self._reaper.end(lease, reason)

    async def _queue_depth(self, run: Judged) -> int:
        try:
            facts = await self._store.control.session_facts(run.turn.session_id)
            return int(facts["waiting"])
        except HoldfastError:
            return 0


def _in_words(run: Judged, facts: Facts, verdict: Verdict) -> str:
    """The founding system's line."""
    turn, progress = run.turn, run.progress
    words = [
        f"{verdict.told} session: sessionId={turn.session_id} sessionKey={turn.session_key}",
        f"lane={turn.lane} turn={turn.turn_id} state={facts.state} age={facts.age_s:.0f}s",
        f"queueDepth={facts.queue_depth} reason={verdict.reason}",
        f"classification={verdict.classification} activeWorkKind={facts.work}",
        f"lastProgress={progress.what} lastProgressAge={facts.progress_age_s:.0f}s",
    ]
    tool = progress.tool()
    if tool is not None:
        words.append(
            f"activeTool={tool.name} activeToolCallId={tool.call_id}"
            f" activeToolAge={facts.tool_age_s or 0:.0f}s activeToolTimeout={tool.timeout_s:g}s"
        )
    words.append(f"recovery={verdict.remedy}")
    return " ".join(words)

"""
The one hook that every tool call of every agent goes through: a memo that outlives us.

    right to act ─▶ intent durable ─▶ right to act ─▶ it runs ─▶ result durable ─▶ the agent

    found in the row              then
    nothing                       it runs
    done                          the recorded result is returned
    failed                        `ToolError` is raised; for its time, `TimeoutError`, and
                                  for its size `TooLargeError`
    started, replay `safe`        it runs again
    started, replay `never`       INTERRUPTED is returned: nobody knows what it did

While it runs, the model's idle timeout stands still and the tool's own bound counts.

What is recorded is JSON: what a tool has returned, as `msgspec` writes it (dataclasses and the
like become objects, times and ids text, bytes base64); what has no such form, as its `str`.
A result that is too large has failed: rows are for what a model is told, and while a large one
is written nobody else's row is.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast import _points
from holdfast._runtime.current import at_work
from holdfast._runtime.made import MadeSoFar
from holdfast._runtime.progress import Progress
from holdfast._stamps import uuid7
from holdfast.errors import DrainingError, TooLargeError, ToolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast._runtime.live import Live
    from holdfast.ports.control.making import Making
    from holdfast.types import (
        FencingToken,
        MadeEntry,
        Steered,
        ToolCall,
        ToolRecord,
        TurnId,
    )

__all__ = ["INTERRUPTED", "Tools", "recorded"]

#: What the model is told of a call that may have had its effect.
INTERRUPTED: Final = (
    "interrupted, effect unknown: the process that ran this tool ended before its result was"
    " recorded; it may or may not have taken effect, and was not run again"
)

_OUTLASTED: Final = "outlasted"
_TOO_LARGE: Final = "too_large"
#: Of what a failed tool says of itself.
_DETAIL_CHARS: Final = 10_000


class Tools:
    """
    The `ToolHook` of one run.

    Args:
        check: raises FencedError unless this run may still act.
        made: what earlier runs of the turn have made.
        steered: takes in messages that were sent into the turn; it notes their entries in
            `Tools.made` itself.
        result_bytes_max: how large a result may be, as JSON.
    """

    def __init__(
        self,
        store: Making,
        turn_id: TurnId,
        token: FencingToken,
        check: Callable[[], None],
        live: Live,
        *,
        made: Sequence[MadeEntry] = (),
        steered: Callable[[], Awaitable[Sequence[Steered]]] | None = None,
        result_bytes_max: int = 4_194_304,
    ) -> None:
        self._store, self._turn_id, self._token = store, turn_id, token
        self._check, self._live, self._steered = check, live, steered
        self._bytes_max = result_bytes_max
        self._told: Callable[[bool], None] | None = None
        self._torn = set[str]()  #: Calls that were cancelled in the middle, under our token.
        self.made = MadeSoFar(store, turn_id, token, made)
        self.running = 0  #: How many tools run, or wait for the store: not the model's time.
        self.progress = Progress()  #: The run's; for the keeper.

    def watched_by(self, told: Callable[[bool], None] | None) -> None:
        """Tell *told* when the first tool starts (True) and when the last one ends (False)."""
        self._told = told

    async def __call__(self, call: ToolCall, run: Callable[[], Awaitable[Any]]) -> Any:
        self._check()
        self._count(+1)
        try:
            record = await self._begin(call)
            if record.state != "started":
                return self._replay(call, record)
            _points.reach("tool.begun")
            self._check()  # Whoever froze since then is not the one to run it.
            return await self._run(call, record.call_id, run)
        finally:
            self._count(-1)

    async def steered(self) -> Sequence[Steered]:
        self._check()
        if self._steered is None or self.made.in_batch:
            return ()
        self._count(+1)
        try:
            return await self._steered()
        finally:
            self._count(-1)

    async def _begin(self, call: ToolCall) -> ToolRecord:
        key = self.made.key(call.call_id)
        arguments = json.loads(recorded(dict(call.arguments)))
        intent = replace(call, call_id=key, arguments=arguments)
        torn = key in self._torn
        self._torn.discard(key)
        try:
            record = await self._store.begin_tool(
                self._turn_id, self._token, intent, uuid7(), torn=torn
            )
        except asyncio.CancelledError:
            self._torn.add(key)  # It may be durable all the same.
            raise
        self.made.expect(key, record.result_id)
        return record

    def _replay(self, call: ToolCall, record: ToolRecord) -> Any:
        interrupted = record.state == "interrupted"
        self._tell(call, "interrupted" if interrupted else "replayed")
        if interrupted:
            return INTERRUPTED
        if record.state == "done":
            return record.result
        kind, detail = record.result["error"], record.result["detail"]
        if kind == _OUTLASTED:
            raise TimeoutError(detail)
        if kind == _TOO_LARGE:
            raise self._too_large(call, int(detail))
        raise ToolError(tool=call.name, kind=kind, detail=detail)

    async def _run(self, call: ToolCall, key: str, run: Callable[[], Awaitable[Any]]) -> Any:
        self._tell(call, "started")
        self.progress.tool_began(call.name, call.call_id, call.timeout_s)
        state = "interrupted"
        try:
            try:
                async with asyncio.timeout(call.timeout_s) as bound:
                    with at_work():
                        result = await run()
            except DrainingError:
                raise  # Not its failure: this process is closing, and the turn goes elsewhere.
            except Exception as error:
                late = isinstance(error, TimeoutError) and bound.expired()
                kind = _OUTLASTED if late else type(error).__name__
                await self._fail(key, kind, str(error)[:_DETAIL_CHARS])
                state = "failed"
                raise
            _points.reach("tool.ran")
            told = recorded(result)
            if len(told) > self._bytes_max:
                await self._fail(key, _TOO_LARGE, str(len(told)))
                state = "failed"
                raise self._too_large(call, len(told))
            await self._end(key, "done", told)
            state = "done"
            return result
        finally:
            if state == "interrupted":
                self._torn.add(key)
            self.progress.tool_ended(call.name, call.call_id)
            self._tell(call, state)

    async def _fail(self, key: str, kind: str, detail: str) -> None:
        await self._end(key, "failed", recorded({"error": kind, "detail": detail}))

    async def _end(self, key: str, state: str, result: bytes) -> None:
        await self._store.end_tool(self._turn_id, self._token, key, state, result)
        _points.reach("tool.ended")

    def _too_large(self, call: ToolCall, size: int) -> TooLargeError:
        hint = "let it return less, or raise turn.tool_result_max_bytes"
        what = f"the result of tool {call.name}"
        return TooLargeError(what=what, size=size, limit=self._bytes_max, hint=hint)

    def _tell(self, call: ToolCall, state: str) -> None:
        self._live.emit("tool", name=call.name, call_id=call.call_id, state=state)

    def _count(self, change: int) -> None:
        before, self.running = self.running, self.running + change
        if self._told is not None and bool(before) != bool(self.running):
            self._told(bool(self.running))


def recorded(value: Any) -> bytes:
    """*value* as the JSON that is kept of it; see above."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # Half a surrogate pair: JSON can say it escaped.
        return json.dumps(value, default=str).encode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return json.dumps(str(value)).encode()

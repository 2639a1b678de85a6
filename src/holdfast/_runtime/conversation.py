"""
Asking an agent until it has answered: retries, idle time, and what the attempts have made.

The write lock is free all the while.  Every failure of a provider is either tried again here,
inside the same run, or becomes the turn's outcome; nothing is swallowed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast import _points
from holdfast._core import failover
from holdfast.errors import (
    AbortedError,
    DrainingError,
    FencedError,
    LeaseLostError,
    LockLostError,
    LockWaitError,
    ProviderError,
    StoreError,
    TakeoverError,
)
from holdfast.types import Final, Made, Silent, Text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast._core.settings import Settings
    from holdfast._runtime.live import Live
    from holdfast._runtime.tools import Tools
    from holdfast.ports import Agent
    from holdfast.types import AgentEvent, Prompt

__all__ = ["Conversation", "Ended", "Said"]

#: What an attempt knows an answer to.  Any other is a tool's, which asked for something of
#: its own and was refused: that is its agent's failure, and no reason to run the turn again.
_CONTENTION = (
    FencedError, LeaseLostError, LockLostError, LockWaitError, TakeoverError, StoreError,
)  # fmt: skip

_log = logging.getLogger("holdfast.turn")


@dataclass(frozen=True, slots=True)
class Said:
    """A finished reply: its messages, oldest first, the last one being the reply."""

    messages: tuple[Mapping[str, Any], ...]
    attempt: int
    ids: tuple[str, ...] = ()  #: Of the entries that the first of them will be; see `made.py`.


@dataclass(frozen=True, slots=True)
class Ended:
    """No reply, and why."""

    outcome: str  #: silent, failed, cancelled; or aborted, which is decided elsewhere.
    reason: str | None
    hint: str | None
    #: Tool calls and results on the way: if the turn runs again, it goes on after them.
    made: tuple[Mapping[str, Any], ...] = ()


class Conversation:
    """One run's talk with its agent.  Used once."""

    def __init__(
        self,
        agent: Agent,
        tools: Tools,
        live: Live,
        count_attempt: Callable[[], Awaitable[int]],
        settings: Settings,
    ) -> None:
        self._agent, self._tools, self._live = agent, tools, live
        self._count_attempt, self._settings = count_attempt, settings
        self._made = tools.made

    async def answer(self, prompt: Prompt) -> Said | Ended:
        """
        Ask until there is an answer, or a failure that asking again does not mend.

        What *prompt* says was made is not looked at: `Tools.made` knows.

        Raises:
            FencedError, LeaseLostError: the right to act is gone.
            StoreError: what was made could not be kept.
        """
        attempt = prompt.attempt
        while True:
            try:
                made = self._made.begin()
                return await self._ask(replace(prompt, attempt=attempt, made=made))
            except ProviderError as error:
                if error.reason not in failover.REASONS:  # An agent is anybody's code.
                    _log.warning("turn %s: not a reason of ours: %s", prompt.turn_id, error)
                    return self._ended("failed", "agent_error", str(error))
                again = failover.may_retry(
                    error.reason,
                    attempt=attempt,
                    attempts_max=self._settings.attempts_max,
                    retry_after_s=error.retry_after_s,
                )
                level = logging.WARNING if again else logging.INFO  # The outcome says the rest.
                _log.log(level, "turn %s: attempt %d: %s", prompt.turn_id, attempt, error)
                if not again:
                    hint = error.hint or failover.REASONS[error.reason].hint
                    return self._ended("failed", error.reason, f"{error} — {hint}")
                await asyncio.sleep(
                    failover.backoff_s(
                        attempt=attempt,
                        retry_after_s=error.retry_after_s,
                        chance=random.random(),  # noqa: S311
                    )
                )
                attempt = await self._count_attempt()
                self._live.emit("attempt", n=attempt, reason=error.reason)
            except AbortedError as error:  # It is to end, and a tool was about to begin.
                return self._ended("aborted", error.reason, None)
            except DrainingError:  # A tool asked for something, and this process is closing.
                return self._ended("aborted", "drained", None)
            except _CONTENTION:
                raise
            except Exception as error:  # noqa: BLE001  An agent is anybody's code.
                _log.exception("turn %s: the agent failed", prompt.turn_id)
                return self._ended("failed", "agent_error", f"{type(error).__name__}: {error}")

    async def _ask(self, prompt: Prompt) -> Said | Ended:
        """One attempt.  The idle bound runs from event to event, but not while tools run."""
        idle_s, progress = self._settings.idle_timeout_ms / 1000, self._tools.progress
        progress.asked()
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(idle_s) as idle:
                self._tools.watched_by(
                    lambda busy: idle.reschedule(None if busy else now() + idle_s)
                )
                async with aclosing(self._agent.respond(prompt, self._tools)) as events:
                    async for event in events:
                        if idle.expired():  # It was told to stop, and goes on all the same.
                            raise TimeoutError
                        progress.bytes_came()
                        idle.reschedule(None)  # Keeping it is our time, not the model's.
                        if (said := await self._take(event, prompt.attempt)) is not None:
                            progress.finished()
                            return said
                        if not self._tools.running:
                            idle.reschedule(now() + idle_s)
        except TimeoutError as error:
            if not idle.expired():
                raise
            detail = f"nothing came from the model for {idle_s:g} s"
            raise ProviderError(reason="timeout", detail=detail) from error
        finally:
            self._tools.watched_by(None)
            progress.answered()
        raise ProviderError(reason="truncated", detail="the agent ended without an answer")

    async def _take(self, event: AgentEvent, attempt: int) -> Said | Ended | None:
        """What was made is durable before the agent is asked to go on."""
        match event:
            case Text(delta):
                self._live.text(delta)
                _points.reach("stream.first_text")
            case Made(message):
                await self._made.add(message)
            case Final(message, _):
                made = self._made.entries
                messages = (*(each.message for each in made), message)
                return Said(messages, attempt, tuple(each.entry_id for each in made))
            case Silent(reason):
                return self._ended("silent", reason, None)
        return None

    def _ended(self, outcome: str, reason: str, hint: str | None) -> Ended:
        return Ended(outcome, reason, hint, self._made.messages)

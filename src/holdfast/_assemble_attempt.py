"""Like `_assemble`, for `holdfast.Attempt`: names a file's lock and the controller together."""

from __future__ import annotations

import os

from holdfast._runtime import controller
from holdfast.backends.files.transcript.attempting import FilesAttempt

__all__ = ["Attempt"]


class Attempt(controller.Attempt):
    """
    One attempt on the transcript at *path*, alone: no store, no runtime, no turn.

        async with holdfast.Attempt(path) as attempt:       # the write lock, eagerly
            async with attempt.prompt_window():             # given back while the model talks
                reply = await stream_from_a_model()
            await attempt.append(reply)                     # after whatever came in between

    Args:
        path: the transcript, by any of its names; made, with a header, if it is not there.
        timeout_s: how long each acquisition of the write lock may take.
        queue_timeout_s: how long the prompt windows of others may take before ours.  Longer
            than any run is meant to last: who waits here waits for a model.
        settle_s: how long `abort` and `dispose` wait for who still writes.
        durability: what is synced: ``always``, ``turn`` (final entries) or ``os`` (nothing).
        max_hold_ms: what our claim promises; after it our watchdog ends our own hold.
        stale_ms: a claim older than this is reported, never removed.
        lane, run_id, session_id: for the claim, so that a waiter can name us.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout_s: float = 60.0,
        queue_timeout_s: float = 3600.0,
        settle_s: float = 2.0,
        durability: str = "turn",
        max_hold_ms: int = 30_000,
        stale_ms: int = 1_800_000,
        lane: str | None = None,
        run_id: str | None = None,
        session_id: str | None = None,
    ) -> None:
        file = FilesAttempt(
            os.fspath(path),
            durability=durability,
            max_hold_ms=max_hold_ms,
            stale_ms=stale_ms,
            lane=lane,
            run_id=run_id,
            session_id=session_id,
        )
        super().__init__(
            file, timeout_s=timeout_s, queue_timeout_s=queue_timeout_s, settle_s=settle_s
        )

"""
Named points in the code where a test may stop the world.

A test that freezes a process "between the token check and the append" needs that place
to have a name.  In production the table is empty and a point costs one dictionary look-up.
The names are listed here, once, so that a renamed point fails its test loudly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["POINTS", "install", "reach"]

POINTS: Final = frozenset(
    {
        "admit.committed",  #: A message is accepted, durably; its sender has not been told.
        "append.checked",  #: The token is checked, the write lock held, no byte written.
        "append.synced",  #: The batch is durable, as far as it was asked to be.
        "append.written",  #: The batch is in the file; nothing is synced.
        "commit.appended",  #: The final entry is durable; no control transaction yet.
        "commit.released",  #: And the write lock is given back.
        "control.begun",  #: Inside a control transaction, before its first statement.
        "control.committed",  #: It is durable and the gate left; nobody is answered yet.
        "effect.left",  #: The mark is left, the write lock given back; the row not moved.
        "effect.loaded",  #: History loaded under the write lock; the mark not left yet.
        "delivery.taken",  #: A part is being attempted, says its row; nothing is sent yet.
        "delivery.tried",  #: The channel has answered, or not; the row does not say so yet.
        "delete.marked",  #: The rows say that a session is deleted; its file is there still.
        "made.added",  #: What the agent has made is durable; it has not been asked to go on.
        "replace.kept",  #: The copy stands; the transcript is the old file still.
        "replace.renamed",  #: The new file stands; neither directory nor row says so yet.
        "restore.appended",  #: What was cut off is put back; no row says so yet.
        "steer.appended",  #: Steered questions stand in the transcript; no row says so yet.
        "steer.taken",  #: Their rows say so; the agent has not heard of them.
        "stream.first_text",  #: The first text of a model call has been handed on.
        "token.checked",  #: The fencing token was found to be the newest; nothing else is.
        "tool.begun",  #: The intent to run a tool is durable; it has not run.
        "tool.ended",  #: Its result is durable; the agent has not heard of it.
        "tool.ran",  #: It has run to its end; its result is not durable.
    }
)

_hooks: dict[str, Callable[[], None]] = {}


def install(name: str, hook: Callable[[], None]) -> None:
    """Run *hook*, synchronously, each time *name* is reached in this process."""
    assert name in POINTS, f"no such point: {name}"
    _hooks[name] = hook


def reach(name: str) -> None:
    """Mark a point.  Does nothing unless a test installed a hook."""
    hook = _hooks.get(name)
    if hook is not None:
        hook()

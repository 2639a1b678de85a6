"""
Holdfast: an agent session runtime.

One writer, every accepted message answered, no finished reply thrown away.  The names below
are the whole public surface; each is loaded on first use, so that `import holdfast` stays
cheap (PEP 562).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast import errors as errors
    from holdfast import ports as ports
    from holdfast import testing as testing
    from holdfast import types as types
    from holdfast._assemble import open as open  # noqa: A004  The contract's name.
    from holdfast._assemble_attempt import Attempt as Attempt
    from holdfast._core.addressing import session_key as session_key
    from holdfast._runtime.own_turn import OwnTurn as OwnTurn
    from holdfast._runtime.receipts import Outcome as Outcome
    from holdfast._runtime.receipts import Receipt as Receipt
    from holdfast._runtime.runtime import Holdfast as Holdfast
    from holdfast.agents.tools import tool as tool
    from holdfast.backends.files.lock.write_lock import WriteLock as WriteLock

__version__ = "0.1.0"

# Asserts state our invariants, and stay on in production.
if not __debug__:
    raise ImportError("holdfast does not run under python -O: its asserts are its invariants")

_WHERE = {
    "Attempt": "holdfast._assemble_attempt",
    "Holdfast": "holdfast._runtime.runtime",
    "Outcome": "holdfast._runtime.receipts",
    "OwnTurn": "holdfast._runtime.own_turn",
    "Receipt": "holdfast._runtime.receipts",
    "WriteLock": "holdfast.backends.files.lock.write_lock",
    "open": "holdfast._assemble",
    "session_key": "holdfast._core.addressing",
    "tool": "holdfast.agents.tools",
}
_MODULES = ("errors", "ports", "testing", "types")

__all__ = [
    "Attempt",
    "Holdfast",
    "Outcome",
    "OwnTurn",
    "Receipt",
    "WriteLock",
    "__version__",
    "errors",
    "open",
    "ports",
    "session_key",
    "testing",
    "tool",
    "types",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module  # noqa: PLC0415  Most programs need one name or two.

    if name in _MODULES:
        return import_module(f"holdfast.{name}")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'holdfast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

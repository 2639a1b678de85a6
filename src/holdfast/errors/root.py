"""The root of the tree, and what every error carries."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from functools import partial
from typing import Any, ClassVar

__all__ = [
    "Advice",
    "HoldfastError",
]


class Advice(Enum):
    """What the caller should do next."""

    RETRY_LATER = "retry_later"  #: The same call, later: the session or store was busy.
    NEXT_ATTEMPT = "next_attempt"  #: The same turn again: the provider failed.
    STOP = "stop"  #: Neither helps; mend the input or tell the person.


# Not frozen: the interpreter and contextlib assign __traceback__ and __cause__.
@dataclass(kw_only=True, eq=False)
class HoldfastError(Exception):
    """Superclass of every error in this package.  Never raised directly."""

    code: ClassVar[str]
    advice: ClassVar[Advice] = Advice.STOP
    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500  #: What HTTP should say; HTTP itself is another layer's.

    hint: str = ""  #: What to do about it, in one sentence.

    def __reduce__(self) -> tuple[partial[HoldfastError], tuple[()]]:
        # Exception.__reduce__ replays positional arguments; our fields are keywords.
        kept: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return partial(type(self), **kept), ()

    def to_json(self) -> dict[str, Any]:
        """`{"code", "message", "hint", …fields}`: JSON values only, nothing secret."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "hint"}
        return {"code": self.code, "message": str(self), "hint": self.hint, **own}

"""
How one provider says what a `Step` tells: the frames of a stream, a whole body, an error.

A dialect is used for one answer, and keeps what its frames need to know of those before them.
Nothing here waits or sends; `_model_app` does both.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from holdfast.testing._model_script import Wanted

__all__ = ["Dialect", "Usage", "data_frame"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens.  What was asked is counted in words of its JSON: any number does."""

    asked: int
    told: int


class Dialect(ABC):
    """
    One answer in one provider's words.

    The frames of a stream come in this order: `head`, `token`…, `calls`, `tail`.  An answer
    that ends badly leaves out the last of them.
    """

    api: ClassVar[str]

    @staticmethod
    @abstractmethod
    def last_user_text(body: Mapping[str, Any]) -> str:
        """The newest text of a user in a request; empty if there is none."""

    @abstractmethod
    def head(self, usage: Usage) -> str: ...

    @abstractmethod
    def token(self, text: str) -> str: ...

    @abstractmethod
    def calls(self, wanted: Sequence[Wanted], *, fragments: int) -> Iterator[str]:
        """One frame, or several, each.  Every call has its id by now."""

    @abstractmethod
    def tail(self, finish: str, usage: Usage, *, called: bool) -> str: ...

    @abstractmethod
    def whole(
        self, text: str, wanted: Sequence[Wanted], finish: str | None, usage: Usage
    ) -> dict[str, Any]:
        """The body of an answer that is not streamed; without a *finish*, it has none."""

    @abstractmethod
    def error(
        self, name: str, retry_after: str | None
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, body and headers of one of `ERRORS`."""

    def error_frame(self, name: str) -> str:
        """The same error inside a stream."""
        return data_frame(self.error(name, None)[1])

    def garbage(self, data: str) -> str:
        """A frame with *data* as it is."""
        return f"data: {data}\n\n"


def data_frame(frame: object) -> str:
    return f"data: {json.dumps(frame)}\n\n"

"""
Closing what an abandoned answer leaves open.

Leaving a stream closes its connection; the SDKs of OpenAI and Anthropic see to that.
google-genai reads an answer through a chain of generators: closing the first leaves the rest,
and the connection under them, to the garbage collector, and until it comes by the provider
goes on writing and charging.  So the answers that its HTTP client begins are noted, each with
the run that asked, and the run closes what it finds open at its end.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pydantic_ai.models import Model

__all__ = ["closing_answers", "watch"]

#: Answers that the run in this context has begun.  Tasks that it starts share the list.
_BEGUN: Final[ContextVar[list[Any] | None]] = ContextVar("holdfast_begun", default=None)


@asynccontextmanager
async def closing_answers() -> AsyncIterator[None]:
    """Around one run: what was begun inside, by models that are watched, is closed after."""
    begun: list[Any] = []
    before = _BEGUN.set(begun)
    try:
        yield
    finally:
        _BEGUN.reset(before)
        for answer in begun:
            await answer.aclose()  # Nothing happens to one that is closed.


def watch(model: Model) -> None:
    """Have *model*, and those inside it, note the answers they begin.  Idempotent."""
    for each in _with_inner(model):
        # Nobody gives out google-genai's HTTP client; no other SDK has one in this place.
        api = getattr(getattr(each, "client", None), "_api_client", None)
        client = getattr(api, "_async_httpx_client", None)
        if client is not None and _note not in client.event_hooks["response"]:
            client.event_hooks["response"].append(_note)


async def _note(answer: Any) -> None:
    if (begun := _BEGUN.get()) is not None:
        begun.append(answer)


def _with_inner(model: Any) -> Iterator[Any]:
    yield model
    inner = [getattr(model, "wrapped", None), *getattr(model, "models", ())]
    for each in inner:
        if each is not None:
            yield from _with_inner(each)

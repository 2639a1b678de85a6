"""What the clauses of the conformance suite are written with."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from holdfast._core.settings import LANES
from holdfast._stamps import uuid7
from holdfast.types import Admission, Commit, TurnId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from holdfast.errors import HoldfastError
    from holdfast.ports import Guarantees, Store
    from holdfast.types import Leased, Session, Turn

    Make = Callable[[], Store]
    Rewrite = Callable[[Store, Session, Callable[[list[bytes]], list[bytes]]], None]
    Step = Callable[[int], None]

__all__ = [
    "CLAUSES",
    "CLOCKS",
    "COMMIT",
    "KEY",
    "REWRITES",
    "WITHIN_S",
    "abort_of",
    "admit",
    "asked_for",
    "booked",
    "clause",
    "clock_clause",
    "entry",
    "hold",
    "leased_now",
    "opened",
    "pick",
    "promises",
    "refused",
    "rewrite_clause",
    "session_now",
    "write",
]

KEY: Final = "agent:main:main"
COMMIT: Final = Commit("reply", "entry-1", b"{}\n", 100, 1, synced=True)

WITHIN_S: Final = 20.0  #: What should happen at once is waited for this long.

CLAUSES: list[Callable[[Make], Awaitable[None]]] = []
REWRITES: list[Callable[[Make, Rewrite], Awaitable[None]]] = []
CLOCKS: list[Callable[[Make, Step], Awaitable[None]]] = []


def clause(function: Any) -> Any:
    """Put *function* into the suite."""
    CLAUSES.append(function)
    return function


def rewrite_clause(function: Any) -> Any:
    """Put *function* into the suite of stores whose transcripts others can rewrite."""
    REWRITES.append(function)
    return function


def clock_clause(function: Any) -> Any:
    """Put *function* into the suite of stores whose clock can be moved on by hand."""
    CLOCKS.append(function)
    return function


def promises(store: Store, what: Guarantees) -> bool:
    """Whether *store* declares *what*."""
    return what in store.guarantees


@asynccontextmanager
async def opened(make: Callable[[], Store], count: int = 1) -> AsyncIterator[list[Store]]:
    """*count* owners of one store, each registered and a runner of agent ``main``."""
    async with AsyncExitStack() as stack:
        stores = []
        for _ in range(count):
            store = make()
            stack.push_async_callback(store.close)
            await store.control.register(store.owner)
            await store.control.register_runner(store.owner.owner_id, ["main"], permanent=True)
            stores.append(store)
        yield stores


def asked_for(text: str = "hello", **changes: Any) -> Admission:
    fields: dict[str, Any] = {
        "turn_id": TurnId(uuid7()), "session_key": KEY, "agent_id": "main", "text": text,
        "lane": "user", "source": "test", "priority": 100, "policy": "enqueue",
        "queue_max": 10, "request_hash": text,
    }  # fmt: skip
    return Admission(**{**fields, **changes})


async def admit(store: Store, text: str = "hello", **changes: Any) -> Turn:
    return (await store.control.admit(asked_for(text, **changes), ())).turn


async def pick(store: Store, **more: Any) -> Leased | None:
    lanes = more.pop("lanes", LANES)
    return await store.control.pick(store.owner.owner_id, ["main"], lanes, **more)


async def leased_now(store: Store) -> Leased:
    found = await pick(store)
    assert found is not None, "a waiting turn was not picked"
    return found


async def abort_of(store: Store, leased: Leased) -> str | None:
    turn = await store.control.turn(leased.turn.turn_id)
    assert turn.abort_requested is (turn.abort_reason is not None)
    assert (turn.abort_at_ms is not None) is turn.abort_requested
    told = (await store.control.aborts(store.owner.owner_id)).get(turn.turn_id)
    assert told == turn.abort_reason, "its owner is told what the row says"
    return turn.abort_reason


async def booked(store: Store, leased: Leased, *merged: Turn) -> Turn:
    """Commit what was leased, with those of *merged*."""
    what = replace(COMMIT, merged=tuple(turn.turn_id for turn in merged))
    return await store.control.commit(leased.turn.turn_id, leased.token, what)


async def refused(kind: type[HoldfastError], call: Awaitable[Any]) -> Any:
    try:
        await call
    except kind as error:
        return error
    raise AssertionError(f"not refused with {kind.__name__}")


async def hold(store: Store, session: Any, timeout_s: float = 5.0) -> Any:
    return await store.transcripts.acquire(
        session, timeout_s=timeout_s, token=None, run_id="conformance", lane=None
    )


async def session_now(store: Store, **changes: Any) -> Session:
    """A session with one waiting turn."""
    return await store.control.session((await admit(store, **changes)).session_id)


def entry(entry_id: str, parent: str | None, **more: Any) -> dict[str, Any]:
    return {"type": "custom", "id": entry_id, "parentId": parent, **more}


async def write(store: Store, session: Any, *entries: Any) -> Any:
    """Append *entries* under the write lock."""
    held = await hold(store, session)
    try:
        return held.append(list(entries), final=True)
    finally:
        held.release()

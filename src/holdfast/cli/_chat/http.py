"""The door to a server: HTTP, and Server-Sent Events that go on where they were cut off."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import httpx2
import msgspec

from holdfast.cli._chat import wire
from holdfast.cli._chat.door import PATIENCE_S, Accepted, Facts, Whose
from holdfast.errors import HoldfastError, WireError
from holdfast.types import EntriesPage, SessionEvent, TurnEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from holdfast.cli._chat.door import Outgoing

__all__ = ["HttpDoor"]

PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0
EVENT_BYTES_MAX: Final = 64 * 1024 * 1024  #: An entry is one event, and entries are large.


class HttpDoor:
    """
    See `Door`.

    Args:
        url: the server's, as `wire.base_url` gives it.
        key: a canonical session key.
        token: None: none was given.
        note: told when the connection is lost, and when it is there again.
    """

    def __init__(
        self, url: str, key: str, token: str | None, *, note: Callable[[str], None]
    ) -> None:
        self.name = url
        self._url, self._has_token, self._note = url, token is not None, note
        self._session = f"/v1/sessions/{quote(key, safe='')}"
        self._client = wire.client(url, token)
        self._known = asyncio.Event()  #: The session exists.
        self._lost = False

    async def open(self) -> None:
        """One look, without patience: what is wrong now will not mend itself."""
        try:
            await self._once("GET", self._session)
        except wire.RefusedInputError as error:
            if error.said != "not_found":  # There is no such session yet.
                raise

    async def close(self) -> None:
        await self._client.aclose()

    # ------------------------------------------------------------------------- messages

    async def submit(self, message: Outgoing) -> Accepted:
        body = {
            "text": message.text,
            "lane": message.lane,
            "source": message.source,
            "policy": message.policy,
            "idempotency_key": message.idempotency_key,
        }
        got = await self._asked("POST", f"{self._session}/messages", body)
        self._known.set()
        return Accepted(
            str(got["turn_id"]), str(got["session_id"]), int(got["position"] or 0),
            got.get("waiting_for"),
        )  # fmt: skip

    async def cancel(self, turn_id: str) -> str | None:
        got = await self._asked("POST", f"{_turn(turn_id)}/cancel")
        outcome = got.get("outcome")
        return None if outcome is None else str(outcome)

    # -------------------------------------------------------------------------- reading

    async def follow(self, turn_id: str) -> AsyncGenerator[TurnEvent, None]:
        after: str | None = None
        patience = _Patience(PATIENCE_S)
        while True:
            try:
                events = self._events(f"{_turn(turn_id)}/events", after, patience)
                async with aclosing(events):
                    async for kind, data, event_id in events:
                        patience.renew()
                        after = event_id or after
                        yield TurnEvent(kind, data, event_id)
                        if kind == "outcome":
                            return
            except (wire.NoServerError, wire.TransientError) as error:
                await self._again(error, patience)

    async def watch(self, after: str | None) -> AsyncGenerator[SessionEvent, None]:
        patience = _Patience(None)
        while True:
            self._known.clear()  # Before the look: what is learnt meanwhile is not missed.
            try:
                events = self._events(f"{self._session}/entries", after, patience)
                async with aclosing(events):
                    async for kind, data, cursor in events:
                        patience.renew()
                        after = cursor or after
                        yield SessionEvent(kind, data, cursor if kind == "entry" else None)
            except wire.RefusedInputError as error:
                if error.said != "not_found":
                    raise
                await self._may_be_known()
            except (wire.NoServerError, wire.TransientError) as error:
                await self._again(error, patience)

    async def recent(self, count: int) -> EntriesPage | None:
        try:
            got = await self._asked("GET", f"{self._session}/entries?last={count}")
        except wire.RefusedInputError as error:
            if error.said == "not_found":
                return None
            raise
        entries = tuple((str(each["cursor"]), each["entry"]) for each in got["entries"])
        return EntriesPage(entries, str(got["next"]))

    async def whose(self, turn_id: str) -> Whose:
        got = await self._asked("GET", _turn(turn_id))
        return Whose(str(got["lane"]), str(got["source"]))

    async def facts(self) -> Facts:
        answers = f"the server at {self._url}"
        try:
            got = await self._asked("GET", self._session)
        except wire.RefusedInputError as error:
            if error.said != "not_found":
                raise
            return Facts(None, 0, None, answers)
        return Facts(str(got["session_id"]), int(got["waiting"]), got.get("running"), answers)

    async def _may_be_known(self) -> None:
        try:
            async with asyncio.timeout(PAUSE_MAX_S / 2):
                await self._known.wait()
        except TimeoutError:
            return

    # ------------------------------------------------------------------ requests, events

    async def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """With patience.  Every request of ours may be made twice."""
        patience = _Patience(PATIENCE_S)
        while True:
            try:
                return await self._once(method, path, body)
            except (wire.NoServerError, wire.TransientError) as error:
                await self._again(error, patience)

    async def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            response = await self._client.request(
                method, f"{self._url}{path}", content=content, headers=headers
            )
        except httpx2.HTTPError as error:
            raise wire.no_server(error, self._url) from error
        if response.status_code >= 300:
            raise wire.refused(response, self._url, has_token=self._has_token)
        self._found()
        return _object(response.content, self._url)

    async def _events(
        self, path: str, after: str | None, patience: _Patience
    ) -> AsyncGenerator[tuple[str, dict[str, Any], str | None], None]:
        """
        (kind, data, id) of one connection's events; the id is that of this very event.

        Raises:
            NoServerError: also when the connection ends: the server drains, or has gone.
        """
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        try:
            async with self._client.stream("GET", f"{self._url}{path}", headers=headers) as got:
                if got.status_code >= 300:
                    await got.aread()
                    raise wire.refused(got, self._url, has_token=self._has_token)
                self._found()
                patience.answered()
                before = after or ""
                source = httpx2.EventSource(got, EVENT_BYTES_MAX)
                async for event in source:
                    # The client repeats the last id on events that have none.
                    own_id = event.id if event.id != before else None
                    before = event.id
                    yield event.event, _object(event.data.encode(), self._url), own_id
        except httpx2.HTTPError as error:
            raise wire.no_server(error, self._url) from error
        raise wire.NoServerError(url=self._url, detail="the stream has ended")

    async def _again(self, error: HoldfastError, patience: _Patience) -> None:
        """Pause before the next try; raises *error* when there has been enough of them."""
        after_s = error.after_s if isinstance(error, wire.TransientError) else None
        pause_s = patience.pause_s(after_s)
        if pause_s is None:
            raise error
        if not self._lost and patience.tries > 1:  # The first try may hit a draining server.
            self._lost = True
            self._note(f"{error}; trying again")
        await asyncio.sleep(pause_s)

    def _found(self) -> None:
        if self._lost:
            self._lost = False
            self._note(f"{self._url} answers again")


class _Patience:
    """How often, and until when, to try again.  *limit_s* None: for ever."""

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self.renew()

    def renew(self) -> None:
        """Something new came."""
        self.tries = 0
        self._pause_s = PAUSE_FIRST_S
        self.answered()

    def answered(self) -> None:
        """It is there; a server that drains says nothing new all the same."""
        self._until_s: float | None = None

    def pause_s(self, asked_s: float | None) -> float | None:
        """How long to pause now; None: no longer."""
        now_s = asyncio.get_running_loop().time()
        self.tries += 1
        if self._until_s is None and self._limit_s is not None:
            self._until_s = now_s + self._limit_s
        if self._until_s is not None and now_s > self._until_s:
            return None
        pause_s, self._pause_s = self._pause_s, min(PAUSE_MAX_S, 2 * self._pause_s)
        return max(pause_s, min(asked_s or 0, PAUSE_MAX_S))


def _turn(turn_id: str) -> str:
    return f"/v1/turns/{quote(turn_id, safe='')}"


def _object(content: bytes, url: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise WireError(detail=f"{url} answered with something else than JSON") from error
    if not isinstance(found, dict):
        raise WireError(detail=f"{url} answered with something else than an object")
    return found

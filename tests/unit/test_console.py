"""The console without a browser: who may see what, and with which headers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from holdfast.errors import DrainingError, ProviderError
from holdfast.gateway._console_live import session_events
from holdfast.gateway.guard import COOKIE, cookie_value
from holdfast.testing.scripted import Fail, ScriptedModel
from support.door import TOKEN, WITHIN_S, Door, door

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SIGNED_IN = {**HTML, "cookie": f"{COOKIE}={cookie_value(TOKEN)}"}
KEY = "agent:main:main"


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Door]:
    async with door(tmp_path / "state") as open_door:
        yield open_door


@pytest_asyncio.fixture
async def http(served: Door) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.url, headers=HTML) as client:
        yield client


async def said(served: Door, *texts: str, key: str = KEY) -> None:
    for text in texts:
        await (await served.hf.submit(key, text)).outcome()


@pytest.mark.parametrize(
    "path", ["/", "/sessions/main", "/open?key=main", "/login", "/sessions/x"]
)
async def test_without_the_token_there_is_only_the_way_in(
    served: Door, http: httpx.AsyncClient, path: str
) -> None:
    await said(served, "a secret")
    answer = await http.get(path)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert 'name="token"' in answer.text
    assert "a secret" not in answer.text
    assert TOKEN not in answer.text


async def test_every_page_has_the_policy(served: Door, http: httpx.AsyncClient) -> None:
    for path in (
        "/",
        "/sessions/main",
        "/sessions/nonsense",
        "/sessions/main/none",
        "/open?key=",
    ):
        for headers in ({}, SIGNED_IN):
            answer = await http.get(path, headers=headers)
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert answer.headers["cache-control"] == "no-store"
            assert "<script>" not in answer.text
            assert "<style" not in answer.text
            assert " style=" not in answer.text


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/sessions/nonsense", 422, "Bad key"),
        ("/sessions/%ff", 422, "Bad key"),
        ("/sessions/main/none", 404, "No such path"),
        ("/sessions/main?last=many", 422, "?last"),
        ("/logout", 405, "this path takes POST"),
        ("/open?key=agent:", 422, "bad session key"),
    ],
)
async def test_people_get_errors_as_pages_and_programs_as_documents(
    http: httpx.AsyncClient, path: str, status: int, said: str
) -> None:
    page = await http.get(path, headers=SIGNED_IN)
    assert page.status_code == status
    assert said in page.text
    assert "<html" in page.text
    if not path.startswith("/open"):
        told = await http.get(path, headers={**SIGNED_IN, "accept": "application/json"})
        assert told.headers["content-type"] == "application/problem+json"


async def test_the_interface_keeps_its_documents_for_browsers_too(
    http: httpx.AsyncClient,
) -> None:
    told = await http.get("/v1/sessions/agent:main:nowhere", headers=SIGNED_IN)
    assert told.headers["content-type"] == "application/problem+json"


# --------------------------------------------------------------------------------- in and out


async def test_the_token_is_changed_for_a_cookie(http: httpx.AsyncClient) -> None:
    answer = await http.post("/login", json={"token": TOKEN})
    assert (answer.status_code, answer.text) == (204, "")
    attributes = answer.headers["set-cookie"].lower().split("; ")
    assert attributes[0] == f"{COOKIE}={cookie_value(TOKEN)}"
    assert {"httponly", "samesite=strict", "path=/"} <= set(attributes)
    assert TOKEN not in str(answer.headers)
    assert (await http.get("/")).status_code == 200
    gone = await http.post("/logout")
    assert (gone.status_code, gone.headers["location"]) == (303, "/")
    assert (await http.get("/")).status_code == 401


@pytest.mark.parametrize("given", ["", "wrong", TOKEN[:-1], TOKEN + "x", "ü", "\ud800"])
async def test_a_wrong_token_gets_nothing_and_is_not_repeated(
    http: httpx.AsyncClient, given: str
) -> None:
    body = b'{"token": "' + given.encode("utf-8", "surrogatepass") + b'"}'
    by_script = await http.post("/login", content=body, headers={"accept": "*/*"})
    by_form = await http.post("/login", data={"token": given.encode("utf-8", "replace")})
    assert by_form.status_code == 401
    assert by_script.status_code in {400, 401}
    for answer in (by_script, by_form):
        assert "set-cookie" not in answer.headers
        assert len(given) < 3 or given not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 422), (b"{}", 422), (b'{"token": 1}', 422), (b"{" + b" " * 9000, 413)],
)
async def test_a_bad_login_is_refused(
    http: httpx.AsyncClient, body: bytes, status: int
) -> None:
    answer = await http.post("/login", content=body, headers={"accept": "*/*"})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("asked", "sent_to"),
    [
        ("/sessions/agent%3Amain%3Amain", "/sessions/agent%3Amain%3Amain"),
        ("", "/"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/sessions/x\\..\\y", "/"),
        ("/sessions/x\r\nSet-Cookie: a=b", "/"),
        ("/sessions/ü", "/"),
        ("/logout", "/"),
        ("javascript:alert(1)", "/"),
    ],
)
async def test_a_login_leads_to_our_own_pages_only(
    http: httpx.AsyncClient, asked: str, sent_to: str
) -> None:
    answer = await http.post("/login", data={"token": TOKEN, "going_to": asked})
    assert (answer.status_code, answer.headers["location"]) == (303, sent_to)
    assert "a=b" not in str(answer.headers)


async def test_another_sites_form_is_refused(http: httpx.AsyncClient) -> None:
    for origin in ("https://evil.example", "null"):
        headers = {**SIGNED_IN, "origin": origin}
        for path in ("/login", "/logout"):
            answer = await http.post(path, data={"token": TOKEN}, headers=headers)
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers


# -------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("key", ["main", "agent:main:ü:日本", "agent:main:100%:a?b#c&<i>\"'"])
async def test_the_box_leads_to_a_key_of_any_characters(
    served: Door, http: httpx.AsyncClient, key: str
) -> None:
    answer = await http.get("/open", params={"key": key}, headers=SIGNED_IN)
    assert answer.status_code == 303
    there = answer.headers["location"]
    assert there.isascii()
    page = await http.get(there, headers=SIGNED_IN)
    assert page.status_code == 200
    assert 'data-after=""' in page.text
    assert "<i>" not in page.text
    await said(served, "hello", key=key)
    assert "reply to: hello" in (await http.get(there, headers=SIGNED_IN)).text
    assert there in (await http.get("/", headers=SIGNED_IN)).text


async def test_a_long_history_is_shown_from_its_end(
    served: Door, http: httpx.AsyncClient
) -> None:
    await said(served, *(f"message {n}." for n in range(4)))
    page = await http.get("/sessions/main?last=3", headers=SIGNED_IN)
    assert page.text.count("<article") == 3
    assert 'href="?last=6#e-' in page.text
    whole = await http.get("/sessions/main?last=8", headers=SIGNED_IN)
    assert whole.text.count("<article") == 8
    assert "?last=" not in whole.text
    cursors = [
        part.partition('data-after="')[2].partition('"')[0] for part in (page.text, whole.text)
    ]
    assert cursors[0] == cursors[1] == (await served.hf.entries(KEY)).next


async def test_a_stream_is_refused_before_it_begins(
    served: Door, http: httpx.AsyncClient
) -> None:
    await said(served, "hello")
    stream = {**SIGNED_IN, "accept": "text/event-stream"}
    assert (await http.head("/sessions/main/live", headers=stream)).status_code == 204
    assert (await http.head("/sessions/main/live")).status_code == 401
    bad = await http.get("/sessions/main/live?after=nonsense", headers=stream)
    assert bad.status_code == 400
    lost = await http.get("/sessions/agent:main:lost/live?after=1.9", headers=stream)
    assert lost.status_code == 400


async def test_a_stream_goes_on_after_the_last_entry(
    served: Door, http: httpx.AsyncClient
) -> None:
    await said(served, "one", "two")
    cursors = [cursor for cursor, _ in (await served.hf.entries(KEY)).entries]
    stream = {**SIGNED_IN, "accept": "text/event-stream"}
    for asked, headers in (
        (f"?after={cursors[1]}", stream),
        ("?after=0.0", {**stream, "last-event-id": cursors[1]}),
    ):
        async with http.stream("GET", f"/sessions/main/live{asked}", headers=headers) as answer:
            assert answer.headers["cache-control"] == "no-store"
            ids = await _first_ids(answer, 2)
        assert ids == cursors[2:]


async def test_an_ending_is_shown_again_once_its_row_says_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is written before the row; a page that showed it in between is put right."""
    error = ProviderError(reason="auth", detail="no key", hint="get a key")
    async with door(tmp_path / "state", ScriptedModel([Fail(error)])) as served:
        control = served.hf.store.control
        may_end, end = asyncio.Event(), control.end

        async def end_late(*given: Any, **more: Any) -> Any:
            await may_end.wait()
            return await end(*given, **more)

        monkeypatch.setattr(control, "end", end_late)
        await served.hf.submit(KEY, "hello")
        async with aclosing(session_events(served.hf, KEY, None)) as events:
            first = await _next_of(events, "This turn failed: auth")
            assert "get a key" not in first
            may_end.set()
            second = await _next_of(events, "This turn failed: auth")
        assert "event: entry" in first
        assert "event: again" in second
        assert "get a key" in second
        assert second.count("id: ") == 0


async def test_a_turn_that_left_no_entry_is_told_from_its_row(tmp_path: Path) -> None:
    """As when its transcript cannot be written."""
    done = asyncio.Event()

    async def until_done(prompt: Any, count: int) -> None:
        await done.wait()

    async with door(tmp_path / "state", ScriptedModel(gate=until_done)) as served:
        receipt = await served.hf.submit(KEY, "hello")
        control = served.hf.store.control
        async with aclosing(session_events(served.hf, KEY, None)) as events:
            assert receipt.turn_id in await _next_of(events, "event: running")
            newest = control.newest_token(receipt.session_id)
            assert newest is not None
            await control.end(
                receipt.turn_id, newest[0], "failed", "bad_transcript", "mend the file"
            )
            told = await _next_of(events, "event: ended")
            assert "bad_transcript" in told
            assert "mend the file" in told
            await _next_of(events, "event: idle")
            done.set()


async def test_a_page_learns_of_a_session_that_is_made_later(served: Door) -> None:
    async with aclosing(session_events(served.hf, KEY, None)) as events:
        told = asyncio.ensure_future(_next_of(events, "reply to: hello"))
        await said(served, "hello")
        assert "event: entry" in await told


async def test_a_page_is_let_go_when_the_process_closes(served: Door) -> None:
    waits = asyncio.ensure_future(anext(session_events(served.hf, "agent:main:none", None)))
    await said(served, "hello")
    async with aclosing(session_events(served.hf, KEY, None)) as events:
        await _next_of(events, "reply to: hello")
        await served.hf.drain(finish_s=0)
        await served.hf.dismiss()
        with pytest.raises(DrainingError):
            await anext(events)
    with pytest.raises(DrainingError):
        await waits


async def _next_of(events: Any, text: str) -> str:
    async with asyncio.timeout(WITHIN_S):
        async for event in events:
            if text.encode() in event:
                return str(event.decode())
    raise AssertionError(text)


async def _first_ids(answer: Any, count: int) -> list[str]:
    found: list[str] = []
    async for line in answer.aiter_lines():
        if line.startswith("id: "):
            found.append(line.removeprefix("id: "))
        if len(found) == count:
            return found
    raise AssertionError(found)


# -------------------------------------------------------------------------------------- files


async def test_static_files_need_no_token_and_are_asked_for_again(
    http: httpx.AsyncClient,
) -> None:
    for name, kind in (
        ("session.js", "text/javascript"),
        ("console.css", "text/css"),
        ("icon.svg", "image/svg+xml"),
    ):
        answer = await http.get(f"/static/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
        tag = {"if-none-match": answer.headers["etag"]}
        again = await http.get(f"/static/{name}", headers=tag)
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["", "none.js", "../console.py", "%2e%2e/console.py", "..%2fconsole.py", "/etc/passwd"],
)
async def test_no_other_file_is_given(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(f"/static/{path}")).status_code in {401, 404}
    assert (await http.post("/static/session.js")).status_code == 405

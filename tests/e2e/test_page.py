"""
The console, in a real browser, against real servers: two processes on one state directory.

Every test ends with a look at what its pages complained about; a broken content policy is a
complaint.  Nothing waits for time: a held step of the model's script says when.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Route, expect

from holdfast.gateway.guard import COOKIE, cookie_value
from holdfast.testing import ModelServer, Step
from support import browser as browsers
from support.browser import PHONE, Tabs
from support.door import until
from support.serving import Served

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOLS = '''
def weather(city: str) -> str:
    """What it is like outside."""
    return f"sunny in {city}, and <b>warm</b>; " + "no cloud to be seen, " * 10
'''
#: Answers; only the first attempt at one message stops after its first word, for ever.
STUCK = """
import asyncio
from holdfast.testing.scripted import ScriptedModel

async def gate(prompt, count):
    if prompt.attempt == 1 and "survive" in prompt.text and count:
        await asyncio.Event().wait()

agent = ScriptedModel(gate=gate)
"""
MESSAGE_BYTES_MAX = 5_000
EVIL = "<img src=x onerror=\"alert('img')\"></script><script>alert('script')</script>&lt;b&gt;"


# ----------------------------------------------------------------------------- the servers


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page")
    (made / "tools_of_this_test.py").write_text(TOOLS)
    (made / "stuck.py").write_text(STUCK)
    return made


def serving(folder: Path, state: str, model: ModelServer) -> Served:
    env = {
        **model.environment,
        "HOLDFAST_AGENTS__MAIN__TOOLS": "tools_of_this_test:weather",
        "HOLDFAST_GATEWAY__MAX_MESSAGE_BYTES": str(MESSAGE_BYTES_MAX),
    }
    return Served(folder / state, "--model", "openai-chat:any", env=env, cwd=folder)


@pytest.fixture(scope="module")
def servers(folder: Path, model: ModelServer) -> Iterator[tuple[Served, Served]]:
    both = serving(folder, "state", model), serving(folder, "state", model)
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        for server in pool.map(Served.start, both):
            stack.push(server)
        yield both


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium(pytestconfig: pytest.Config) -> AsyncIterator[Browser]:
    capture: Any = pytestconfig.pluginmanager.get_plugin("capturemanager")

    def tell(line: str) -> None:  # On the screen, not among what is captured.
        with capture.global_and_fixture_disabled():
            print(f"\n{line}")

    async with browsers.browser(tell) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def tabs(chromium: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Tabs]:
    opened = Tabs(chromium, request.node.name.removeprefix("test_"))
    yield opened
    await opened.close()
    # That a request was refused is a part of some tests; anything else is a fault.
    complaints = [c for c in opened.complaints if not c.startswith("Failed to load resource")]
    assert not complaints


# ---------------------------------------------------------------------------- what one does


async def sign_in(page: Page, server: Served) -> None:
    """As one who has been here before."""
    cookie = {"name": COOKIE, "value": cookie_value(server.token), "url": server.url}
    await page.context.add_cookies([cookie])  # type: ignore[list-item]


async def enter(page: Page, server: Served, key: str) -> None:
    await sign_in(page, server)
    await page.goto(f"{server.url}/sessions/{quote(key, safe='')}")
    await expect(status(page)).to_have_text("live")


async def say(page: Page, text: str) -> None:
    """Ends when the server has it."""
    await box(page).fill(text)
    await box(page).press("Enter")
    await expect(box(page)).to_have_value("")


def box(page: Page) -> Locator:
    return page.get_by_label("Message", exact=True)


def status(page: Page) -> Locator:
    return page.locator("#link")


def entries(page: Page) -> Locator:
    return page.locator("#log .entry")


def replies(page: Page) -> Locator:
    return page.locator("#log .entry.reply")


def said(page: Page) -> Locator:
    """What the running turn has said so far."""
    return page.locator("#running [data-part=said]")


def waiting(page: Page) -> Locator:
    return page.locator("#waiting li")


async def shown(page: Page) -> list[str]:
    """The log, as somebody reads it."""
    return await page.locator("#log .entry .text").all_inner_texts()


async def sent(server: Served, key: str, text: str, **more: Any) -> str:
    async with server.async_client() as http:
        answer = await http.post(f"/v1/sessions/{key}/messages", json={"text": text, **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["turn_id"])


async def transcript(server: Served, key: str) -> list[str]:
    """The texts of the conversation, in the order of the file."""
    async with server.async_client() as http:
        answer = await http.get(f"/v1/sessions/{key}/entries", params={"limit": 500})
    messages = [each["entry"].get("message") for each in answer.json()["entries"]]
    return ["".join(part.get("text", "") for part in m["content"]) for m in messages if m]


async def check_reload_shows_the_same(page: Page) -> None:
    async def log() -> str:
        return re.sub(r">\s+<", "><", await page.locator("#log").inner_html()).strip()

    before = await log()
    await page.reload()
    await expect(status(page)).to_have_text("live")
    assert await log() == before


# -------------------------------------------------------------------------------- signing in


async def test_the_printed_link_signs_in(servers: Any, tabs: Tabs) -> None:
    server, _ = servers
    page = await tabs.open()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    await page.goto(f"{server.url}/#token={server.token}")
    await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    assert page.url == f"{server.url}/"
    assert not any(server.token in url for url in requested)
    assert server.token not in await page.content()
    (cookie,) = await page.context.cookies()
    assert cookie["name"] == "holdfast"
    assert cookie["value"] != server.token
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Token")).to_be_visible()
    assert not await page.context.cookies()


async def test_a_form_signs_in_and_goes_on_to_the_page(servers: Any, tabs: Tabs) -> None:
    server, _ = servers
    page = await tabs.open()
    await page.goto(f"{server.url}/sessions/agent%3Amain%3Aform")
    await page.get_by_label("Token").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("not this server’s token")
    assert not await page.context.cookies()
    await tabs.shoot(page, "wrong")
    await page.get_by_label("Token").fill(server.token)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="agent:main:form")).to_be_visible()
    await expect(status(page)).to_have_text("live")


async def test_a_wrong_link_says_so(servers: Any, tabs: Tabs) -> None:
    page = await tabs.open()
    await page.goto(f"{servers[0].url}/#token=wrong")
    await expect(page.get_by_role("alert")).to_contain_text("not this server’s")
    assert "wrong" not in page.url


# ----------------------------------------------------------------------------------- one order


async def test_two_tabs_on_two_servers_show_the_order_of_the_transcript(
    servers: Any, tabs: Tabs, model: ModelServer
) -> None:
    key = "agent:main:order"
    pages = [await tabs.open(), await tabs.open()]
    for page, server in zip(pages, servers, strict=True):
        await enter(page, server, key)
    one, two = pages
    for page, text in ((one, "a1"), (two, "b1"), (one, "a2")):
        await say(page, text)
    for both in range(3):
        await asyncio.gather(say(one, f"a at once {both}"), say(two, f"b at once {both}"))
    for page in pages:
        await expect(replies(page)).to_have_count(9)
        await expect(page.locator("#running .entry")).to_have_count(0)
    told = await transcript(servers[0], key)
    assert len(told) == 18
    assert await shown(one) == await shown(two) == told
    await check_reload_shows_the_same(one)


async def test_another_lanes_turn_appears_with_where_it_came_from(
    servers: Any, tabs: Tabs
) -> None:
    key = "agent:main:lanes"
    page, phone = await tabs.open(), await tabs.open(PHONE, color_scheme="dark")
    await enter(page, servers[0], key)
    await enter(phone, servers[1], key)
    await sent(servers[1], key, "good morning", lane="cron", source="alarm")
    for each in (page, phone):
        await expect(replies(each)).to_have_text([re.compile("reply to: good morning")])
        await expect(entries(each).first).to_contain_text("via alarm · lane cron")
    await check_reload_shows_the_same(page)


# ---------------------------------------------------------------------------------- mid-stream


async def test_a_reload_in_mid_stream_resumes_and_finishes(
    servers: Any, tabs: Tabs, model: ModelServer
) -> None:
    key, words = "agent:main:stream", ("The ", "harbour ", "is ", "quiet ", "tonight.")
    step = Step.reply(*words).keyed("harbour").held(after=3)
    model.add(step)
    page = await tabs.open()
    await enter(page, servers[0], key)
    await say(page, "how is the harbour?")
    await expect(said(page)).to_have_text("The harbour is ")
    await expect(entries(page)).to_have_count(1)
    await expect(page.locator(".text:visible", has_text="how is the")).to_have_count(1)
    await tabs.shoot(page, "held")
    await page.reload()
    other = await tabs.open()  # On the process that does not run the turn.
    await enter(other, servers[1], key)
    for each in (page, other):
        await expect(said(each)).to_have_text("The harbour is ")
        await expect(entries(each)).to_have_count(1)
        await expect(each.locator(".text:visible", has_text="how is the")).to_have_count(1)
    assert step.gate is not None
    step.gate.set()
    for each in (page, other):
        await expect(replies(each)).to_have_count(1)
        assert await shown(each) == ["how is the harbour?", "".join(words)]
        await expect(page.locator("#running .entry")).to_have_count(0)
    await check_reload_shows_the_same(page)


async def test_a_second_attempt_voids_what_the_first_has_said(
    servers: Any, tabs: Tabs, model: ModelServer
) -> None:
    first = Step(tokens=("void ", "words ", "lost"), after=2, end="drop").keyed("twice")
    second = Step.reply("kept ", "words").keyed("twice").held(after=1)
    model.add(first, second)
    page = await tabs.open()
    await enter(page, servers[0], "agent:main:attempts")
    await say(page, "say it twice")
    await expect(said(page)).to_contain_text("kept ")
    await expect(said(page)).to_contain_text("Attempt 2")
    await expect(page.get_by_text("void words")).to_have_count(0)
    await tabs.shoot(page, "second")
    assert second.gate is not None
    second.gate.set()
    await expect(replies(page)).to_have_count(1)
    assert await shown(page) == ["say it twice", "kept words"]


async def test_tools_are_shown_in_a_line_and_in_full_on_demand(
    servers: Any, tabs: Tabs, model: ModelServer
) -> None:
    last = Step.reply("It is ", "sunny.").keyed("Rome").held(after=1)
    model.add(Step.call("weather", {"city": "Rome"}).keyed("Rome"), last)
    page = await tabs.open()
    await enter(page, servers[0], "agent:main:tools")
    await say(page, "what is it like in Rome?")
    await expect(said(page)).to_contain_text("weather done")
    await expect(said(page)).to_contain_text("It is ")
    await tabs.shoot(page, "at-work")
    assert last.gate is not None
    last.gate.set()
    await expect(replies(page).last).to_contain_text("It is sunny.")
    await expect(page.locator("#log .call").first).to_contain_text('weather {"city": "Rome"}')
    result = page.locator("#log details.call")
    await expect(result.locator("pre")).to_be_hidden()
    await result.locator("summary").click()
    await expect(result.locator("pre")).to_contain_text("and <b>warm</b>")


# ------------------------------------------------------------------------- how it may also end


async def test_waiting_turns_show_their_place_and_both_kinds_can_be_cancelled(
    servers: Any, tabs: Tabs, model: ModelServer
) -> None:
    model.add(Step.reply("never ", "finished").keyed("hold on").held(after=1))
    page, other = await tabs.open(), await tabs.open()
    await enter(page, servers[0], "agent:main:cancel")
    await enter(other, servers[1], "agent:main:cancel")
    await say(page, "hold on")
    await expect(said(page)).to_have_text("never ")
    for text in ("second", "third"):
        await say(page, text)
    for each in (page, other):
        await expect(waiting(each).locator(".text")).to_have_text(["second", "third"])
        await expect(waiting(each).locator(".place")).to_have_text(["1 ahead", "2 ahead"])
    await tabs.shoot(page, "queue")
    await waiting(other).first.get_by_role("button", name="Cancel").click()
    for each in (page, other):
        await expect(waiting(each).locator(".place")).to_have_text(["1 ahead"])
        await expect(each.locator("#waiting .dropped")).to_contain_text(
            re.compile("second.*cancelled, before it began", re.DOTALL)
        )
    await page.locator("#running").get_by_role("button", name="Cancel").click()
    for each in (page, other):
        await expect(each.locator("#log .notice")).to_have_text([re.compile("Cancelled")])
        await expect(replies(each)).to_have_text([re.compile("reply to: third")])
        await expect(each.get_by_text("never ")).to_have_count(0)
    await check_reload_shows_the_same(page)


async def test_a_failed_turn_shows_its_reason(
    servers: Any, tabs: Tabs, model: ModelServer
) -> None:
    model.add(Step.fail("unauthorized").keyed("with a bad key"))
    page = await tabs.open()
    await enter(page, servers[0], "agent:main:failed")
    await say(page, "with a bad key")
    notice = page.locator("#log .notice.bad")
    await expect(notice).to_contain_text("This turn failed: auth")
    await expect(notice).to_contain_text("check the provider's API key")
    await expect(page.locator("#running .entry")).to_have_count(0)
    await tabs.shoot(page, "reason")
    await check_reload_shows_the_same(page)


async def test_nothing_that_is_said_becomes_html(
    servers: Any, tabs: Tabs, model: ModelServer
) -> None:
    key, question = "agent:main:evil", f"evil question {EVIL}"
    step = Step.reply(EVIL, " and so on").keyed("evil question").held(after=1)
    model.add(step)
    page = await tabs.open()
    await enter(page, servers[0], key)
    await say(page, question)
    await expect(said(page)).to_have_text(EVIL)
    await sent(servers[0], key, EVIL)
    await expect(waiting(page).locator(".text")).to_have_text([EVIL])
    await expect(page.locator("#session img, #session script, #session b b")).to_have_count(0)
    assert step.gate is not None
    step.gate.set()
    await expect(replies(page)).to_have_count(2)
    live = await shown(page)
    assert live[:3] == [question, f"{EVIL} and so on", EVIL]
    await check_reload_shows_the_same(page)
    assert await shown(page) == live
    await expect(page.locator("#session img, #session script")).to_have_count(0)


# --------------------------------------------------------------------------------- keys, people


@pytest.mark.parametrize(
    "key", ["agent:main:küche:команда:日本", "agent:main:100%:a?b#c&d=<e>\"'"]
)
async def test_a_key_of_any_characters_works(servers: Any, tabs: Tabs, key: str) -> None:
    page = await tabs.open()
    await sign_in(page, servers[0])
    await page.goto(servers[0].url)
    await page.get_by_label("by its key").fill(key)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading")).to_have_text(key)
    await expect(page.locator("#empty")).to_be_visible()
    await expect(status(page)).to_have_text(
        "live"
    )  # Before its script runs, Enter sends nothing.
    await say(page, "hello")
    await expect(replies(page)).to_have_count(1)
    await expect(page.locator("#empty")).to_be_hidden()
    await page.get_by_role("link", name="Holdfast").click()
    await page.get_by_role("link", name=key, exact=True).click()
    await expect(replies(page)).to_have_count(1)


async def test_the_list_of_sessions_stays_fresh(servers: Any, tabs: Tabs) -> None:
    page, key = await tabs.open(), "agent:main:fresh"
    await page.clock.install()
    await sign_in(page, servers[0])
    await page.goto(servers[0].url)
    await sent(servers[1], key, "hello")
    await expect(page.get_by_role("link", name=key)).to_have_count(0)
    await page.clock.fast_forward(3_000)
    await expect(page.get_by_role("link", name=key)).to_have_count(1)


async def test_it_is_used_by_keyboard_alone(servers: Any, tabs: Tabs) -> None:
    server, _ = servers
    page = await tabs.open()
    keyboard = page.keyboard
    await page.goto(server.url)
    await keyboard.type(server.token)
    await keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    await keyboard.press("Tab")
    await keyboard.press("Tab")
    await expect(page.get_by_label("by its key")).to_be_focused()
    await keyboard.press("End")
    await keyboard.type("keyboard")
    await keyboard.press("Enter")
    await expect(status(page)).to_have_text("live")
    await expect(box(page)).to_be_focused()
    await keyboard.type("one")
    await keyboard.press("Shift+Enter")
    await keyboard.type("two")
    await keyboard.press("Enter")
    await expect(box(page)).to_be_focused()
    await expect(replies(page)).to_have_count(1)
    assert (await shown(page))[0] == "one\ntwo"
    await keyboard.type("   ")
    await keyboard.press("Enter")
    await keyboard.press("Control+A")
    await keyboard.type("three")
    await keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Send")).to_be_focused()
    await keyboard.press("Enter")
    await expect(replies(page)).to_have_count(2)


async def test_it_fits_a_phone(servers: Any, tabs: Tabs, model: ModelServer) -> None:
    long = "https://example.net/" + "averylongwordwithoutabreak" * 5
    held = Step.reply("Yes, ", "of course.").keyed("small screen").held(after=1)
    model.add(Step.reply("Here: ", long).keyed("link"), held)
    page = await tabs.open(PHONE, color_scheme="dark", has_touch=True, is_mobile=True)
    await enter(page, servers[0], "agent:main:phone")
    await say(page, "send me the link")
    await expect(replies(page)).to_have_count(1)
    await say(page, "does it fit a small screen?")
    await say(page, "and this one waits")
    await expect(said(page)).to_have_text("Yes, ")
    await expect(waiting(page)).to_have_count(1)
    for where in ("conversation", "sessions"):
        # A phone's innerWidth grows with a page that is too wide.
        wide = await page.evaluate("document.scrollingElement.scrollWidth")
        assert wide <= PHONE[0], f"{where} is {wide} px wide"
        await tabs.shoot(page, where)
        await page.goto(servers[0].url)
    assert held.gate is not None
    held.gate.set()


# --------------------------------------------------------------------------- when things break


async def test_a_message_whose_answer_was_lost_is_sent_once(servers: Any, tabs: Tabs) -> None:
    page = await tabs.open()
    key = "agent:main:retry"
    await enter(page, servers[0], key)
    tries: list[int] = []

    async def lose_the_first_answer(route: Route) -> None:
        answer = await route.fetch()
        tries.append(answer.status)
        await (route.abort() if len(tries) == 1 else route.fulfill(response=answer))

    await page.route("**/messages", lose_the_first_answer)
    await box(page).fill("only once")
    await box(page).press("Enter")
    await expect(page.locator("#said")).to_contain_text("Not sent yet")
    await expect(box(page)).to_have_value("")
    assert tries == [202, 202]
    await expect(replies(page)).to_have_count(1)
    await say(page, "only once")  # Said again by a person, it is another message.
    await expect(replies(page)).to_have_count(2)
    assert [text for text in await transcript(servers[0], key) if text == "only once"] == [
        "only once"
    ] * 2


async def test_a_reload_before_the_answer_sends_it_once(servers: Any, tabs: Tabs) -> None:
    page, key = await tabs.open(), "agent:main:left"
    await enter(page, servers[0], key)
    taken = asyncio.Event()

    async def keep_the_first_answer(route: Route) -> None:
        if taken.is_set():
            await route.continue_()
        else:
            await route.fetch()
            taken.set()

    await page.route("**/messages", keep_the_first_answer)
    await box(page).fill("left behind")
    await box(page).press("Enter")
    await taken.wait()
    await page.reload()
    await expect(status(page)).to_have_text("live")
    await expect(box(page)).to_have_value("")
    await say(page, "after it")
    await expect(replies(page)).to_have_count(2)
    assert len(await transcript(servers[0], key)) == 4


async def test_what_is_typed_before_the_script_runs_is_kept(servers: Any, tabs: Tabs) -> None:
    page, key = await tabs.open(), "agent:main:quick"
    await enter(page, servers[0], key)
    left = asyncio.Event()

    async def lose_the_first(route: Route) -> None:
        if left.is_set():
            await route.continue_()
        else:
            left.set()

    await page.route("**/messages", lose_the_first)
    await _reload_and_type(page, "typed first")
    await expect(box(page)).to_have_value("typed first")
    await box(page).press("Enter")
    await left.wait()  # And the page is left before there is an answer.
    await _reload_and_type(page, "typed meanwhile")
    await expect(replies(page)).to_have_text([re.compile("reply to: typed first")])
    await expect(box(page)).to_have_value("typed meanwhile")
    await box(page).press("Enter")
    await expect(replies(page)).to_have_count(2)


async def _reload_and_type(page: Page, text: str) -> None:
    """Before the page's script is there."""
    typed = asyncio.Event()

    async def hold(route: Route) -> None:
        await typed.wait()
        await route.continue_()

    await page.route("**/session.js", hold)
    await page.reload(wait_until="commit")
    await box(page).fill(text)
    typed.set()
    await expect(status(page)).to_have_text("live")
    await page.unroute("**/session.js")


async def test_a_refused_message_says_why_and_stays_in_the_box(
    servers: Any, tabs: Tabs
) -> None:
    page = await tabs.open()
    await enter(page, servers[0], "agent:main:refused")
    await box(page).fill("x" * (MESSAGE_BYTES_MAX + 1))
    await box(page).press("Enter")
    await expect(page.locator("#said")).to_contain_text("over the limit")
    assert len(await box(page).input_value()) == MESSAGE_BYTES_MAX + 1


async def test_a_tab_that_nobody_sees_gives_its_connection_back(
    servers: Any, tabs: Tabs
) -> None:
    page, key = await tabs.open(), "agent:main:hidden"
    await enter(page, servers[0], key)
    hide = """(is) => {
        Object.defineProperty(document, "hidden", {value: is, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await say(page, "before")
    await expect(replies(page)).to_have_count(1)
    await page.evaluate(hide, True)
    turn = await sent(servers[1], key, "while nobody looks")
    async with servers[0].async_client() as http:
        await until(lambda: _is_over(http, turn))
    await expect(replies(page)).to_have_count(1)
    await page.evaluate(hide, False)
    await expect(replies(page)).to_have_count(2)
    await expect(entries(page)).to_have_count(4)


async def _is_over(http: Any, turn: str) -> bool:
    return (await http.get(f"/v1/turns/{turn}")).json()["outcome"] is not None


async def test_the_page_outlives_its_server(folder: Path, tabs: Tabs) -> None:
    key = "agent:main:restart"
    with Served(folder / "restarted", "--agent", "stuck:agent", cwd=folder) as server:
        page = await tabs.open()
        await enter(page, server, key)
        await say(page, "will you survive?")
        await expect(said(page)).to_have_text("reply ")
        server.kill()
        await expect(status(page)).to_contain_text("does not answer")
        await box(page).fill("written meanwhile")
        await box(page).press("Enter")
        await expect(page.locator("#said")).to_contain_text("Your message stays here")
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        await tabs.shoot(page, "gone")
        await asyncio.to_thread(server.start)
        await expect(status(page)).to_have_text("live")
        await expect(replies(page)).to_have_text([re.compile("reply to: will you survive?")])
        await box(page).press("Enter")
        await expect(replies(page)).to_have_count(2)
        assert await shown(page) == await transcript(server, key)
        server.signal(signal.SIGTERM)
        assert (await asyncio.to_thread(server.wait))[0] == 0
        await asyncio.to_thread(server.start)
        await expect(status(page)).to_have_text("live")
        await say(page, "and again")
        await expect(replies(page)).to_have_count(3)


async def test_where_no_browser_is_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("TEST_BROWSER", raising=False)
    monkeypatch.delenv("CI", raising=False)
    told: list[str] = []
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        await browsers.browser(told.append).__aenter__()
    assert told == ["the page is not tested: " + browsers.MISSING]
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no browser"):
        await browsers.browser().__aenter__()

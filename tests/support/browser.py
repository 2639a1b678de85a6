"""
A headless Chromium, and pages that keep what went wrong in them.

Screenshots are kept in `$TEST_ARTEFACTS`, by default `.artefacts` at the root.  (Its name does
not begin with HOLDFAST_: what does is a setting, and an unknown one is refused.)
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect

__all__ = ["MISSING", "Tabs", "artefacts", "browser", "executable"]

ARGS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = f"no browser: none of {', '.join(NAMES)} is here"
WITHIN_MS = 30_000
DESK, PHONE = (1100, 800), (390, 844)


def executable() -> str | None:
    """A browser of this machine; `$TEST_BROWSER` names another."""
    named = os.environ.get("TEST_BROWSER")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


def artefacts() -> Path:
    root = Path(__file__).parents[2] / ".artefacts"
    found = Path(os.environ.get("TEST_ARTEFACTS", root))
    found.mkdir(parents=True, exist_ok=True)
    return found


@asynccontextmanager
async def browser(tell: Callable[[str], None] = print) -> AsyncIterator[Browser]:
    """Skips, and tells why, where there is none; in CI that is a failure."""
    found = executable()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        tell(f"the page is not tested: {MISSING}")
        pytest.skip(MISSING)
    # Its sandbox works for an ordinary user only.
    args = [*ARGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    expect.set_options(timeout=WITHIN_MS)
    async with async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=found, args=args)
        yield chromium
        await chromium.close()


class Tabs:
    """
    The tabs of one test.  Whatever a page complains about is in `complaints`: a policy that
    was broken, an exception, a request that failed.
    """

    def __init__(self, chromium: Browser, name: str) -> None:
        self._chromium, self._name = chromium, re.sub(r"[^A-Za-z0-9_]+", "-", name)
        self._stack = AsyncExitStack()
        self._pages: list[Page] = []
        self.complaints: list[str] = []

    async def open(self, size: tuple[int, int] = DESK, **context: Any) -> Page:
        """A tab of a browser of its own: it shares no cookie with the others."""
        width, height = size
        made = await self._chromium.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **context
        )
        self._stack.push_async_callback(made.close)
        made.set_default_timeout(WITHIN_MS)
        return self._listen(await made.new_page())

    async def shoot(self, page: Page, what: str) -> Path:
        path = artefacts() / f"{self._name}-{what}.png"
        await page.screenshot(path=path)
        return path

    async def close(self) -> None:
        if self._pages:
            await self.shoot(self._pages[0], "end")
        await self._stack.aclose()

    def _listen(self, page: Page) -> Page:
        def said(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                self.complaints.append(message.text)

        page.on("console", said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))
        self._pages.append(page)
        return page

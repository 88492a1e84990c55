"""Headless Chromium for tests of pages: what it said, what it asked for, and what it showed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOCAL = ("http://127.0.0.1:", "ws://127.0.0.1:", "file:", "data:", "blob:", "about:")


def find_chromium() -> str:
    """Return where Chromium is; without it skip, or fail where it is required."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        message = "there is no chromium: tools/install_chromium.sh installs it"
        if os.environ.get("CI") or os.environ.get("HMLM_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@contextmanager
def open_browser() -> Iterator[object]:
    """Start Chromium with an empty profile of its own, and end it."""
    path = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, headless=True, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A tab, with all that went wrong in it and every address it asked for."""

    page: object
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    first: str | None = None  # what a test wants to remember

    @property
    def outside(self) -> list[str]:
        """Addresses that are not on this computer."""
        return [a for a in self.addresses if not a.startswith(LOCAL)]

    @property
    def overflow(self) -> int:
        """How far the page reaches beyond the right edge of the window, in pixels."""
        return self.page.evaluate(
            "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) - innerWidth"
        )


@contextmanager
def open_tab(browser, address: str, width: int = 1280, height: int = 900) -> Iterator[Tab]:
    """Open an address in a tab of a given size."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    tab = Tab(page)

    def hear(message):
        if message.type == "error":
            tab.errors.append(message.text)

    def dismiss(dialog):
        tab.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("console", hear)
    page.on("pageerror", lambda error: tab.errors.append(str(error)))
    page.on("requestfailed", lambda r: tab.errors.append(f"{r.url}: {r.failure}"))
    page.on("dialog", dismiss)
    page.on("request", lambda request: tab.addresses.append(request.url))
    page.on("websocket", lambda socket: tab.addresses.append(socket.url))
    try:
        page.goto(address)
        yield tab
    finally:
        context.close()

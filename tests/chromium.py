"""Pages in Debian's chromium, driven by Playwright. Tests that need it are skipped where it is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser: there is no {CHROMIUM}")


@contextmanager
def launched() -> Iterator[Any]:
    """The browser, closed at the end."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no browser: Playwright isn't installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(_ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def watched(browser: Any, file: Path, **options: Any) -> Iterator[Any]:
    """The page of a file; at the end nothing may have been requested, and nothing complained of."""
    page = browser.new_page(**options)
    said, requested = list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(file.as_uri())
    yield page
    assert said == []
    assert {url for url in requested if not url.startswith(("data:", "blob:"))} == {file.as_uri()}
    page.close()

"""What is photographed, and how the pictures are cut and stored."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from PIL import Image

CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_MARGIN = 16  # px below what is cut at

Prepare = Callable[[Any], None]


def stay(page: Any) -> None:
    """Leave the page as it opens."""


@dataclass(frozen=True)
class Shot:
    """One picture.

    name: of its file. width, height: of the window, in CSS px. scale: pixels of the picture for one of them.
    prepare: brings the page into the state that is photographed.
    below: a selector; the picture ends below the last element of it that the window holds whole, not in mid-air.
    is_linked: whether the documentation shows it; others are for looking at.
    """

    name: str
    width: int = 1280
    height: int = 800
    scheme: Literal["light", "dark"] = "light"
    scale: float = 1
    prepare: Prepare = stay
    below: str = ""
    is_linked: bool = True


@contextmanager
def open_browser() -> Iterator[Any]:
    """Debian's chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(_ARGUMENTS))
        yield browser
        browser.close()


def take(browser: Any, address: str, shot: Shot, out: Path) -> Path:
    """OUT/name.png of the page at an address."""
    page = browser.new_page(
        viewport={"width": shot.width, "height": shot.height}, color_scheme=shot.scheme, device_scale_factor=shot.scale
    )
    page.emulate_media(reduced_motion="reduce")
    page.goto(address)
    shot.prepare(page)
    clip = _clip(page, shot)
    path = out / f"{shot.name}.png"
    _store(page.screenshot(clip=clip) if clip else page.screenshot(), path)
    page.close()
    return path


def _clip(page: Any, shot: Shot) -> Mapping[str, float] | None:
    """The part of the window down to the last whole element of `below`; None for all of it."""
    if not shot.below:
        return None
    bottoms = page.eval_on_selector_all(
        shot.below, "elements => elements.map((one) => one.getBoundingClientRect().bottom)"
    )
    height = max(bottom for bottom in bottoms if bottom <= shot.height - _MARGIN) + _MARGIN
    return {"x": 0, "y": 0, "width": shot.width, "height": height}


def _store(png: bytes, path: Path) -> None:
    Image.open(BytesIO(png)).convert("RGB").save(path, optimize=True)  # fewer colours would belie the legends

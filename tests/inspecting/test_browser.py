"""The pages of inspected rows and of two models in a real browser."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delta_attnmask.inspecting.inspection_page import render_inspections
from tests.chromium import launched, needs_chromium, watched
from tests.inspecting.pages import attention_page, levels_picture
from tests.inspecting.test_inspection_page import EVIL, inspection
from tests.reporting.runs import HOSTILE

pytestmark = needs_chromium

PHONE = {"viewport": {"width": 360, "height": 720}, "color_scheme": "dark"}
TEXTS = {"inspector": EVIL, "attention": HOSTILE}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    rows = [inspection(), inspection(row=8, reason=EVIL)]
    html = {"inspector": render_inspections(rows, model=EVIL, data=EVIL), "attention": attention_page()}
    for name, text in html.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in html}


@pytest.mark.parametrize("name", TEXTS)
def test_it_fits_a_phone_and_is_dark_where_the_system_is(browser, files, name):
    with watched(browser, files[name], **PHONE) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        ground = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(ground) == "rgb(21, 23, 26)"
        page.get_by_role("button", name="Show the page in light colours").click()
        assert page.evaluate(ground) == "rgb(251, 250, 248)"


@pytest.mark.parametrize("name", TEXTS)
def test_what_the_data_says_never_runs(browser, files, name):
    with watched(browser, files[name], **PHONE) as page:
        title = page.title()
        assert title.startswith(("Where the model looked", "Attention before and after"))
        assert page.get_by_text(TEXTS[name]).count() > 1
        assert page.locator("img").count() == 0
        assert page.title() == title


def test_a_word_shows_its_losses_to_the_keyboard(browser, files):
    with watched(browser, files["inspector"], **PHONE) as page:
        shown = "getComputedStyle(document.querySelector('.token.answer'), '::after').content"
        assert page.evaluate(shown) == "none"
        page.locator(".token.answer").focus()
        assert "loss 2.00 → 7.00" in page.evaluate(shown)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_cell_has_the_colour_that_the_legend_gives_it(browser, tmp_path, scheme):
    """Over a black, a grey and a white picture alike, the swatch that comes nearest is the cell's own."""
    file = tmp_path / "page.html"
    rows = [inspection(row=grey, **levels_picture(grey)) for grey in (0, 128, 255)]
    file.write_text(render_inspections(rows, model="a", data="b"))
    with watched(browser, file, viewport={"width": 1280, "height": 800}, color_scheme=scheme) as page:
        screen = Image.open(BytesIO(page.screenshot(full_page=True))).convert("RGB")
        cells, swatches = (colours_of(page, screen, selector) for selector in ("rect.heat", ".swatch.heat"))
    for number, own in enumerate(cells.reshape(3, 9, 3)):
        apart = np.linalg.norm(own[:, None] - swatches[:9], axis=-1)
        assert apart.argmin(axis=1).tolist() == list(range(9))
        assert number != 1 or apart.diagonal().max() < 6, "over grey, they are alike"


def colours_of(page: Any, screen: Image.Image, selector: str) -> Any:
    """The middle pixel of each element; `[element, channel]`."""
    middles = page.locator(selector).evaluate_all(
        """elements => elements.map((element) => {
            const box = element.getBoundingClientRect();
            return [box.x + scrollX + box.width / 2, box.y + scrollY + box.height / 2];
        })"""
    )
    return np.array([screen.getpixel((round(x), round(y))) for x, y in middles])

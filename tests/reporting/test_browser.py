"""The page in a real browser: nothing leaves, nothing is refused, and the keyboard reaches everything."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delta_attnmask.reporting.page import write_page
from delta_attnmask.reporting.run_report import Request, make_report
from delta_attnmask.selecting.run_selection import select_from_run
from tests.chromium import launched, needs_chromium, watched
from tests.reporting.runs import HOSTILE, write_calibration, write_data, write_run

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    deltas: list[float | None] = np.random.default_rng(0).normal(size=80).tolist()
    deltas[7] = None
    run = write_run(folder / "run", write_data(folder / "data", 80), deltas)
    write_calibration(folder / "run")
    request = Request(run=run, selection=select_from_run(run, "20%"), n_cards=200)
    write_page(folder / "report.html", make_report(request))
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as chromium:
        yield chromium


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Any]:
    """The page on a phone that is dark."""
    with watched(browser, report, viewport={"width": 360, "height": 720}, color_scheme="dark") as page:
        yield page


def visible_cards(page: Any) -> list[str]:
    return [card.get_attribute("data-status") for card in page.locator(".card:visible").all()]


def test_it_fits_a_phone_and_is_dark_where_the_system_is(opened):
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    ink = "getComputedStyle(document.querySelector('.chart text')).fill"
    assert opened.evaluate(ink) == "rgb(232, 230, 225)"
    opened.get_by_role("button", name="Show the page in light colours").click()
    assert opened.evaluate(ink) == "rgb(29, 33, 38)"


def test_what_the_data_says_never_runs(opened):
    assert opened.title() == "Which 20 % of data.json is worth training on?"
    assert opened.get_by_text(HOSTILE).count() > 0
    assert opened.locator("img:not([src^='data:image/webp'])").count() == 0


def test_filters_work_by_keyboard(opened):
    assert len(visible_cards(opened)) == 24
    opened.locator("#filter-text").focus()
    opened.keyboard.type("word12")
    assert len(visible_cards(opened)) == 1
    opened.keyboard.press("Control+A")
    opened.keyboard.press("Delete")
    opened.keyboard.press("Shift+Tab")  # source
    opened.keyboard.press("Shift+Tab")  # status
    opened.keyboard.type("failed")
    assert visible_cards(opened) == ["failed"]
    opened.keyboard.press("Home")
    opened.keyboard.press("Shift+Tab")  # the group that is chosen
    opened.keyboard.press("ArrowRight")
    assert opened.locator("input[name=group]:checked").get_attribute("value") == "top"
    assert "of 40 samples that fit" in opened.locator("#shown").inner_text()
    assert set(visible_cards(opened)) == {"kept", "left"}


def test_more_cards_come_when_asked(opened):
    n_all = opened.locator(".card").count()
    assert n_all > 48
    opened.locator("#more").press("Enter")
    assert len(visible_cards(opened)) == 48
    assert opened.evaluate("document.activeElement.className").startswith("card")


def test_everything_that_acts_can_be_reached_by_tab(opened):
    seen = set[str]()
    opened.keyboard.press("Tab")
    assert opened.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(80):
        seen.add(opened.evaluate("document.activeElement.id || document.activeElement.tagName"))
        opened.keyboard.press("Tab")
    assert {"theme", "SUMMARY", "filter-status", "filter-source", "filter-text", "more"} <= seen

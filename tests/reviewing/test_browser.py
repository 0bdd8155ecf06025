"""Judges use the page in Chromium, by keyboard, mouse and touch; what they save is what they answered."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from delta_attnmask.exporting.run_export import open_scored
from delta_attnmask.reviewing.answers import read_answers
from delta_attnmask.reviewing.handout import write_page
from delta_attnmask.reviewing.pairs import begin_review
from delta_attnmask.reviewing.protocol import QUESTIONS, Protocol
from delta_attnmask.runs import RunFolder
from tests.chromium import launched, needs_chromium, watched

pytestmark = needs_chromium

KEYS = {"first": "1", "second": "2", "equal": "0", "unknown": "?"}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("review")


@pytest.fixture(scope="module")
def protocol(scored: Path, folder: Path) -> Protocol:
    """A review of four pairs and two checks; each page of the browser has a memory of its own."""
    return begin_review(RunFolder.open(scored / "run"), folder, scored / "kept.json", n_pairs=4)


@pytest.fixture(scope="module")
def file(scored: Path, protocol: Protocol, folder: Path) -> Path:
    return write_page(protocol, open_scored(RunFolder.open(scored / "run")), folder)


def enter(page: Any, name: str = "Ann") -> None:
    page.wait_for_function("document.activeElement.id === 'name'")  # the script gives it the focus
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#pair .side")


def shown(page: Any) -> tuple[str, str]:
    """The pair and the question on the screen."""
    return page.get_attribute("#pair", "data-pair"), page.get_attribute("#ask", "data-question")


def saved(page: Any, path: Path, button: str = "#ask [data-act=save]") -> Path:
    with page.expect_download() as download:
        page.click(button)
    download.value.save_as(path / download.value.suggested_filename)
    return path / download.value.suggested_filename


def test_a_whole_review_by_keyboard(browser, file, protocol, tmp_path):
    expected = {}
    with watched(browser, file, **DESKTOP) as page:
        enter(page, "Ann  Müller / 7")
        for pair in protocol.pairs:
            for question in QUESTIONS:
                assert shown(page) == (pair.token, question.name)
                answer = list(KEYS)[len(expected) % 4]
                page.keyboard.press(KEYS[answer])
                expected[pair.token, question.name] = answer
        assert page.is_visible("#done")
        page.keyboard.press("ArrowLeft")
        assert shown(page) == list(expected)[-1]
        page.keyboard.press("2")
        expected[list(expected)[-1]] = "second"
        path = saved(page, tmp_path, "#done [data-act=save]")
        assert page.title() != "taken"  # no script of the data set ever ran
    assert path.name == "answers-Ann-Müller-7.json"
    answers = read_answers(path, protocol)
    assert {(one.pair.token, one.question): one.answer for one in answers} == expected
    assert {one.rater for one in answers} == {"Ann Müller / 7"}


def test_a_judge_resumes_and_another_begins(browser, file, protocol, tmp_path):
    with watched(browser, file, **DESKTOP) as page:
        enter(page)
        for _ in range(5):
            page.keyboard.press("1")
        before = shown(page)
        page.reload()
        page.wait_for_selector("#pair .side")
        assert shown(page) == before
        page.click(".help summary")
        page.click("[data-act=leave]")
        enter(page, "Ben")
        assert shown(page) == (protocol.pairs[0].token, "clarity")
        page.keyboard.press("2")
        page.click(".help summary")
        page.click("[data-act=leave]")
        enter(page, "ANN")
        assert shown(page) == before
        assert len(json.loads(saved(page, tmp_path).read_text())["answers"]) == 5


WATCH_FIELD = """
new MutationObserver((_, observer) => {
  const field = document.getElementById("name");
  if (!field) return;
  window.wasDisabled = field.disabled;
  observer.disconnect();
}).observe(document, { childList: true, subtree: true });
"""


def test_no_name_can_be_typed_before_the_script_listens(browser, file):
    with watched(browser, file) as page:
        page.add_init_script(WATCH_FIELD)
        page.reload()
        assert page.evaluate("window.wasDisabled")
        assert page.is_enabled("#name")
        enter(page)


def test_a_browser_that_keeps_nothing_says_so(browser, file, tmp_path):
    with watched(browser, file) as page:
        page.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('full') }")
        page.reload()
        enter(page)
        page.keyboard.press("1")
        page.keyboard.press("1")
        assert "keeps no answers" in page.inner_text("#trouble")
        assert len(json.loads(saved(page, tmp_path).read_text())["answers"]) == 2


def test_what_the_browser_kept_is_not_trusted(browser, file, protocol):
    with watched(browser, file) as page:
        enter(page)
        page.keyboard.press("1")
        key = page.evaluate("Object.keys(localStorage).find((key) => key.endsWith('answers/ann'))")
        for kept in ("{", "7", '[null, 1, {"pair": 3}]', '{"a": 1}'):
            page.evaluate("([key, kept]) => localStorage.setItem(key, kept)", [key, kept])
            page.reload()
            page.wait_for_selector("#pair .side")
            assert shown(page) == (protocol.pairs[0].token, "clarity")
            page.keyboard.press("1")
            assert shown(page)[1] == "correctness"


def test_a_double_tap_is_one_answer(browser, file):
    with watched(browser, file, **PHONE) as page:
        enter(page)
        page.wait_for_timeout(250)
        page.evaluate("for (const _ of [1, 2]) document.querySelector('[data-answer=first]').click()")
        assert shown(page)[1] == "correctness"
        page.wait_for_timeout(250)
        page.tap("[data-answer=equal]")
        assert shown(page)[1] == "image"


def test_an_image_can_be_enlarged(browser, file):
    with watched(browser, file, **DESKTOP) as page:
        enter(page)
        small = page.locator("#pair img").first
        small.click()
        large = page.locator("#whole img")
        assert large.get_attribute("src") == small.get_attribute("src")
        assert large.bounding_box()["height"] > small.bounding_box()["height"]
        page.keyboard.press("1")
        assert shown(page)[1] == "correctness"


def test_a_pair_that_goes_on_below_the_question_says_so(browser, file):
    options = {"viewport": {"width": 390, "height": 560}, "reduced_motion": "reduce"}
    with watched(browser, file, **options) as page:
        enter(page)
        further = page.locator("#further")
        further.wait_for(state="visible")
        while further.is_visible():
            before = page.evaluate("scrollY")
            further.click()
            page.wait_for_function(f"scrollY > {before}")
        assert page.is_visible("#pair .answer")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

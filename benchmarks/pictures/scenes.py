"""Every picture: of which page, how large, and in which state."""

from collections.abc import Callable
from itertools import count
from typing import Any

from benchmarks.pictures.shots import Prepare, Shot

_JUDGES = count(1)
_PHONE: dict[str, Any] = {"width": 390, "height": 844, "scale": 2}
_INSPECTOR: dict[str, Any] = {"width": 1040, "height": 1500, "below": ".inspection > details"}


def to_heading(text: str) -> Prepare:
    """The page from this heading on."""

    def prepare(page: Any) -> None:
        page.get_by_role("heading", name=text, exact=True).first.evaluate("element => element.scrollIntoView()")

    return prepare


def open_card(page: Any) -> None:
    """The gallery, from its first inspected card on, which is open."""
    card = page.locator(".card:has(details.inspection):visible").first
    card.locator("details.inspection > summary").click()
    card.evaluate("element => element.scrollIntoView()")


def to_first_pair(page: Any) -> None:
    """Begin as a judge whom the review doesn't know yet."""
    page.fill("#name", f"Judge {next(_JUDGES)}")
    page.keyboard.press("Enter")
    page.wait_for_selector("#pair .side")


def answer_while(page: Any, goes_on: Callable[[], bool]) -> None:
    """Answer question after question."""
    while goes_on():
        page.keyboard.press("1")


def to_pair(page: Any) -> None:
    """The second question of the first pair with two pictures."""
    to_first_pair(page)
    answer_while(page, lambda: page.locator("#pair img").count() < 2)
    answer_while(page, lambda: page.get_attribute("#ask", "data-question") != "correctness")


REPORT = (
    Shot("report-wide", height=1000, below=".contents"),
    Shot("report-dark", height=1000, below=".contents", scheme="dark", is_linked=False),
    Shot("report-cut", height=1700, prepare=to_heading("Where the cut falls"), below="#score"),
    Shot("report-calibration", height=1700, prepare=to_heading("What the score can and can't see"), below="figure",
         is_linked=False),
    Shot("report-calibration-dark", height=1700, prepare=to_heading("What the score can and can't see"),
         below="figure", scheme="dark", is_linked=False),
    Shot("report-card", height=1400, prepare=open_card, below=".card"),
    Shot("report-phone", **_PHONE, is_linked=False),
    Shot("report-phone-cut", **_PHONE, prepare=to_heading("Where the cut falls"), scheme="dark", is_linked=False),
)  # fmt: skip
INSPECTOR = (
    Shot("inspector", **_INSPECTOR),
    Shot("inspector-dark", **_INSPECTOR, scheme="dark", is_linked=False),
    Shot("inspector-phone", **_PHONE, prepare=to_heading("Row 1231 emoji · pool-01231"), is_linked=False),
)
ATTENTION = (
    Shot("attention", height=1300, below=".scroll"),
    Shot("attention-dark", height=1300, below=".scroll", scheme="dark", is_linked=False),
    Shot(
        "attention-rows",
        height=1300,
        prepare=to_heading("The same rows side by side"),
        below="article",
        is_linked=False,
    ),
    Shot("attention-phone", **_PHONE, prepare=to_heading("The same rows side by side"), is_linked=False),
)
REVIEW = (
    Shot("review-pair", prepare=to_pair),
    Shot("review-phone", **_PHONE, prepare=to_pair, is_linked=False),
    Shot("review-dark", scheme="dark", prepare=to_pair, is_linked=False),
)

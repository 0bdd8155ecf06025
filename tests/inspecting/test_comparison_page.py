"""The page of two models stands alone and escapes what models and data are called and say."""

import re

from tests.inspecting.pages import attention_page
from tests.reporting.runs import HOSTILE


def test_what_the_data_says_is_text() -> None:
    html = attention_page()
    assert HOSTILE not in html
    assert "<script>document" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;document.title") >= 9, "two names, the data, and three texts of each row"


def test_nothing_comes_from_elsewhere() -> None:
    html = attention_page()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r'\s(?:style|on\w+)="', html), "the page's policy refuses them"


def test_both_models_are_drawn_over_each_picture() -> None:
    html = attention_page()
    assert html.count("Base, attention") == html.count("Tuned, attention")
    assert html.count('class="heat heat') == 2 * 2 * 4, "two rows, two models, four tokens"


def test_the_page_doesn_t_hide_what_chance_does() -> None:
    html = attention_page()
    assert "of the 20 lines, about 1 would look" in html
    assert "drawn at random it would be 20\N{NO-BREAK SPACE}%" in html

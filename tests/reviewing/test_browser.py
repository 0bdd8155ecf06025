"""A rater judges by keyboard in Chromium while the server is killed and started again."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from delta_attnmask.reviewing.protocol import KEYS, questions_of
from delta_attnmask.reviewing.store import ReviewStore
from tests.chromium import launched, needs_chromium
from tests.reviewing.conftest import HOSTILE

pytest.importorskip("starlette", reason="the extra `ui` isn't installed")
pytestmark = needs_chromium


@contextmanager
def serving(scored: Path, out: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server as a process of its own, and the address that it prints."""
    command = ["review", scored / "run", "--selection", scored / "kept.json", "--out", out, "--pairs", "12", "--serve"]
    arguments = [sys.executable, "-m", "delta_attnmask", *map(str, command), "--port", str(port)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, next((found[1] for line in process.stdout if (found := re.match(r"Open (\S+)", line))), "")
        finally:
            process.kill()


@pytest.fixture
def page() -> Iterator[Any]:
    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(20_000)
        yield page


def answer(page: Any, key: str) -> None:
    """Press a key and wait for the next question, which says that the answer is stored."""
    before = page.get_attribute("#ask", "data-status")
    page.keyboard.press(key)
    page.wait_for_selector(f'#ask:not([data-status="{before}"])')


def test_ten_pairs_a_killed_server_and_the_eleventh(scored, tmp_path, page):
    out = tmp_path / "review.sqlite"
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    with serving(scored, out, 0) as (server, address):
        page.goto(address)
        page.wait_for_function("document.activeElement.id === 'name'")  # the field has the focus by itself
        page.fill("#name", "Ann")  # typed keys may come before the page listens
        page.keyboard.press("Enter")
        page.wait_for_selector("#pair")
        with closing(ReviewStore.open(out)) as store:
            pairs = store.pairs()
        expected = {}
        for pair in pairs[:10]:
            assert page.get_attribute("#pair", "data-pair") == pair.token
            for question in questions_of(pair.kind):
                chosen = list(KEYS)[len(expected) % 4]
                answer(page, KEYS[chosen])
                expected[pair.position, question.name] = chosen
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector(f'#pair[data-pair="{pairs[9].token}"]')
        answer(page, "2")
        expected[9, questions_of(pairs[9].kind)[-1].name] = "second"

        server.send_signal(signal.SIGKILL)
        server.wait()
        page.keyboard.press("1")
        page.wait_for_selector("#trouble:not([hidden])")
        assert "Not saved yet" in page.inner_text("#trouble")

    port = int(address.rstrip("/").rpartition(":")[2])
    with serving(scored, out, port):
        # The answer that the killed server never got comes through by itself, and only once.
        page.wait_for_selector('#ask[data-question="correctness"]')
        assert page.is_hidden("#trouble")
        assert page.get_attribute("#pair", "data-pair") == pairs[10].token
        expected[10, "clarity"] = "first"
        page.reload()
        assert page.get_attribute("#pair", "data-pair") == pairs[10].token
        assert "Pair 11 of" in page.inner_text("#ask .count")
        with closing(ReviewStore.open(out)) as store:
            assert store.answers(store.enter("Ann")) == expected
    assert page.title() != "taken"  # no script of the data set ever ran
    assert all(url.startswith(address) for url in requests)


def judge_up_to(kind: str, out: Path, name: str) -> None:
    """Answer everything before the first pair of a kind."""
    with closing(ReviewStore.open(out)) as store:
        rater = store.enter(name)
        for pair in store.pairs():
            if pair.kind == kind:
                return
            for question in questions_of(pair.kind):
                store.judge(rater, pair, question.name, "equal", f"{pair.position}-{question.name}")


def enter(page: Any, address: str, name: str) -> None:
    page.goto(address)
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#pair")


def test_twelve_samples_fit_a_screen_and_each_can_be_read_whole(scored, tmp_path, page):
    out = tmp_path / "review.sqlite"
    page.set_viewport_size({"width": 1280, "height": 800})
    with serving(scored, out, 0) as (_, address):
        judge_up_to("sheet", out, "Ann")
        enter(page, address, "Ann")
        tops = page.eval_on_selector_all(".item", "items => items.map((item) => item.getBoundingClientRect().top)")
        assert len(set(tops)) == 2, "two rows of six on each side"
        bottom = page.evaluate("document.getElementById('pair').getBoundingClientRect().bottom")
        assert bottom <= page.evaluate("document.getElementById('ask').getBoundingClientRect().top")
        assert page.is_hidden("#further")
        whole = page.locator(".whole").first
        assert whole.is_hidden()
        page.locator(".item").first.focus()
        page.keyboard.press("Enter")
        assert HOSTILE in whole.inner_text()
        page.keyboard.press("Escape")
        assert whole.is_hidden()


def test_a_pair_that_goes_on_below_the_question_says_so(scored, tmp_path, page):
    out = tmp_path / "review.sqlite"
    page.set_viewport_size({"width": 390, "height": 560})
    page.emulate_media(reduced_motion="reduce")
    with serving(scored, out, 0) as (_, address):
        enter(page, address, "Ann")
        further = page.locator("#further")
        further.wait_for(state="visible")
        while further.is_visible():
            before = page.evaluate("scrollY")
            further.click()
            page.wait_for_function(f"scrollY > {before}")
        assert page.is_visible("#pair .answer")

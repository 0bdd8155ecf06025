"""The page over HTTP: blind, escaped, closed to other sites and to whoever lacks the token."""

import json
import re
import socket
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

pytest.importorskip("starlette", reason="the extra `ui` isn't installed")

from starlette.testclient import TestClient

from delta_attnmask.reviewing.guard import Access
from delta_attnmask.reviewing.protocol import questions_of
from delta_attnmask.reviewing.samples import SampleBook
from delta_attnmask.reviewing.server import ReviewServer, make_address
from tests.reviewing.conftest import HOSTILE, SOURCES

HOST = "http://127.0.0.1:8765"
OWN = {"origin": HOST}


def open_client(run, store, access: Access, base_url: str = HOST) -> TestClient:
    book = SampleBook.open(run, store.pairs(), seed=store.review.seed)
    return TestClient(ReviewServer(store, book, access).app, base_url=base_url, follow_redirects=False)


@pytest.fixture
def client(run, store) -> Iterator[TestClient]:
    with open_client(run, store, Access.to("127.0.0.1")) as client:
        yield client


@pytest.fixture
def ann(client):
    assert client.post("/enter", json={"name": "Ann"}, headers=OWN).status_code == 204
    return client


class Tags(HTMLParser):
    """Elements and attributes of a page as a browser finds them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def values(self, tag: str, name: str) -> list[str]:
        return [attributes.get(name) or "" for found, attributes in self.found if found == tag]


def judge(client, pair, question, answer, nonce=None):
    body = {"pair": pair.token, "question": question, "answer": answer, "nonce": nonce or f"{pair.token}{question}"}
    return client.post("/judge", json=body, headers=OWN)


def walk(client, store) -> Iterator[tuple[object, str]]:
    """Every pair with its page, judged one after the other."""
    (rater,) = store.raters()
    for pair in store.pairs():
        yield pair, client.get("/pair").text
        for question in questions_of(pair.kind):
            store.judge(rater, pair, question.name, "equal", f"{pair.token}{question.name}")
    assert "Thank you" in client.get("/pair").text


def test_a_name_first(client):
    page = client.get("/")
    assert page.status_code == 200
    assert 'id="enter"' in page.text
    assert 'id="pair"' not in page.text
    assert client.get("/pair").status_code == 401
    assert client.post("/undo", json={"nonce": "n"}, headers=OWN).status_code == 401
    refused = client.post("/enter", json={"name": " "}, headers=OWN)
    assert (refused.status_code, refused.text[:5]) == (400, "name:")


def test_nothing_tells_which_side_was_selected(ann, store):
    """No page, address or header holds an id, a path, a source or a role."""
    secrets = [*SOURCES[:2], "signs", "secret", "selected", "control", "target", "repeat", "shuffled", "delta_"]
    for pair, html in walk(ann, store):
        text = html.replace('target="_blank"', "").replace("popovertarget", "").lower()
        assert not [word for word in secrets if word in text]
        tags = Tags(html)
        own = [address for address in tags.values("img", "src") if f"/{pair.token}/" in address]
        pattern = rf"/image/{pair.token}/[12]/\d+/0"
        assert all(re.fullmatch(pattern, address) for address in tags.values("img", "src"))
        n_each = [sum(f"/{side}/" in address[-6:] for address in own) for side in (1, 2)]
        assert n_each == [len(pair.first), len(pair.second)] or pair.kind == "sheet"
        for address in own[:2]:
            image = ann.get(address)
            assert image.status_code == 200
            assert set(image.headers) <= {
                *("content-length", "content-type", "cache-control", "content-security-policy", "referrer-policy"),
                *("x-content-type-options", "x-frame-options", "cross-origin-resource-policy"),
                "cross-origin-opener-policy",
            }


def test_a_page_depends_on_what_is_shown_alone(run, store):
    """The same review with the sides' roles exchanged gives the same bytes."""
    from dataclasses import replace

    from delta_attnmask.reviewing.protocol import other_side
    from delta_attnmask.reviewing.views import view_pair

    book = SampleBook.open(run, store.pairs(), seed=store.review.seed)
    pairs = store.pairs()
    for pair in pairs:
        if pair.kind != "shuffled":
            exchanged = replace(pair, target=other_side(pair.target), kind=pair.kind.replace("repeat", "compare"))
            assert view_pair(exchanged, pairs, {}, book) == view_pair(pair, pairs, {}, book)


def test_texts_of_the_data_are_escaped(ann, store):
    for pair, html in walk(ann, store):
        assert HOSTILE not in html
        assert "&lt;script&gt;" in html or pair.kind == "shuffled"
        tags = Tags(html)
        assert "script" not in [tag for tag, _ in tags.found]
        assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    ann.post("/enter", json={"name": "<script>x</script>"}, headers=OWN)
    assert "<script>x" not in ann.get("/").text


def test_the_policy_lets_nothing_else_in(ann):
    page = ann.get("/")
    (policy,) = [
        attributes["content"]
        for tag, attributes in Tags(page.text).found
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"
    assert rules["img-src"] == "'self' data:"
    assert "unsafe" not in policy
    assert page.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert page.headers["cache-control"] == "no-store"
    assert not re.findall(r"https?://(?!www\.w3\.org)", page.text)


def test_answers_are_stored_and_undone(ann, store):
    first = store.pairs()[0]
    assert 'data-question="correctness"' in judge(ann, first, "clarity", "first").text
    assert [(one.rater, one.answer) for one in store.judgements()] == [("Ann", "first")]
    back = ann.post("/undo", json={"nonce": "u"}, headers=OWN)
    assert 'data-question="clarity"' in back.text
    assert store.judgements() == []


def test_a_rater_goes_on_and_another_begins(run, store):
    pairs = store.pairs()
    with open_client(run, store, Access.to("127.0.0.1")) as client:
        client.post("/enter", json={"name": "Ann"}, headers=OWN)
        for question in questions_of(pairs[0].kind):
            judge(client, pairs[0], question.name, "first")
        client.post("/leave", json={}, headers=OWN)
        assert 'id="enter"' in client.get("/").text
        client.post("/enter", json={"name": "Ben"}, headers=OWN)
        assert f'data-pair="{pairs[0].token}"' in client.get("/").text
    with open_client(run, store, Access.to("127.0.0.1")) as client:
        client.post("/enter", json={"name": "ann"}, headers=OWN)
        assert f'data-pair="{pairs[1].token}"' in client.get("/").text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"pair": 1, "question": "clarity", "answer": "first", "nonce": "n"}', 400),
        (b'{"pair": "none", "question": "clarity", "answer": "first", "nonce": "n"}', 404),
        (b'{"pair": "PAIR", "question": "coverage", "answer": "first", "nonce": "n"}', 400),
        (b'{"pair": "PAIR", "question": "clarity", "answer": "third", "nonce": "n"}', 400),
        (b'{"pair": "' + b"x" * 5000 + b'"}', 413),
    ],
)
def test_what_is_no_answer_is_refused(ann, store, body, status):
    sent = body.replace(b"PAIR", store.pairs()[0].token.encode())
    headers = OWN | {"content-type": "application/json"}
    assert ann.post("/judge", content=sent, headers=headers).status_code == status
    assert store.judgements() == []


@pytest.mark.parametrize("tail", ["3/0/0", "1/5/0", "1/0/9", "1/0", "1/-1/0", "1/0/../../etc/passwd"])
def test_images_only_by_pair_and_side(ann, store, tail):
    assert ann.get(f"/image/{store.pairs()[0].token}/{tail}").status_code == 404
    assert ann.get("/image/secret-3.png").status_code == 404
    assert ann.get("/image/0000/1/0/0").status_code == 404


def test_an_image_that_has_gone(run, store):
    with open_client(run, store, Access.to("127.0.0.1")) as client:
        token = store.pairs()[0].token
        run_images = run.path.parent / "images"
        hidden = run_images.rename(run_images.with_name("hidden"))
        try:
            response = client.get(f"/image/{token}/1/0/0")
        finally:
            hidden.rename(run_images)
        assert response.status_code == 404
        assert "secret" not in response.text


FOREIGN = {
    "a form of another site": {"origin": "http://evil.example", "content-type": "application/json"},
    "another port": {"origin": "http://127.0.0.1:1", "content-type": "application/json"},
    "no origin": {"content-type": "application/json"},
    "an opaque origin": {"origin": "null", "content-type": "application/json"},
    "plain text": OWN | {"content-type": "text/plain"},
    "a form": OWN | {"content-type": "application/x-www-form-urlencoded"},
}


@pytest.mark.parametrize("how", FOREIGN)
def test_other_sites_can_send_nothing(ann, store, how):
    body = {"pair": store.pairs()[0].token, "question": "clarity", "answer": "first", "nonce": "n"}
    assert ann.post("/judge", content=json.dumps(body), headers=FOREIGN[how]).status_code == 403
    assert store.judgements() == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[", "192.0.2.7"])
def test_foreign_names_for_this_machine_are_refused(client, host):
    """A site that makes its own name point here (DNS rebinding) would be of the same origin as the page."""
    assert client.get("/", headers={"host": host}).status_code == 421
    for own in ("localhost:9000", "127.0.0.1", "[::1]:8765", "LOCALHOST"):
        assert client.get("/", headers={"host": own}).status_code == 200


def test_beyond_this_machine_a_token_is_needed(run, store):
    access = Access.to("0.0.0.0", names=["review.example"])
    assert access.token is not None
    assert Access.to("0.0.0.0").token != access.token
    assert len(access.token) >= 32
    with open_client(run, store, access, "http://192.0.2.7:8765") as client:
        for path in ("/", "/pair", f"/image/{store.pairs()[0].token}/1/0/0", "/?token=wrong", "/?token=", "/?token=é"):
            assert client.get(path).status_code == 403
        own = {"origin": "http://192.0.2.7:8765"}
        assert client.post("/enter", json={"name": "Eve"}, headers=own).status_code == 403
        assert store.raters() == ()
        entered = client.get(f"/?token={access.token}")
        assert (entered.status_code, entered.headers["location"]) == (303, "/")  # it doesn't stay in the address
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        page = client.get("/")
        assert page.status_code == 200
        assert access.token not in page.text
        assert client.post("/enter", json={"name": "Ann"}, headers=own).status_code == 204
        assert client.get("/", headers={"host": "review.example"}).status_code == 200
        assert client.get("/", headers={"host": "evil.example"}).status_code == 421


def test_the_address_that_is_printed():
    assert make_address("127.0.0.1", 80, None) == "http://127.0.0.1:80/"
    assert make_address("::1", 80, "t") == "http://[::1]:80/?token=t"
    assert make_address("0.0.0.0", 80, "t") == f"http://{socket.gethostname()}:80/?token=t"
    assert Access.to("0.0.0.0").admits_host(f"{socket.gethostname()}:80")


def test_a_token_here_too_if_asked_for():
    assert Access.to("127.0.0.1").token is Access.to("::1").token is Access.to("localhost").token is None
    assert Access.to("127.0.0.1", with_token=True).token
    assert Access.to("192.0.2.7").token

"""The folder of a review: drawn once, and a page that is blind, escaped, and closed."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.reviewing.handout import begin_review, write_page
from delta_attnmask.reviewing.protocol import PROTOCOL_FILE, Protocol, other_side
from delta_attnmask.reviewing.samples import SampleBook
from delta_attnmask.runs import RunFolder
from tests.reviewing.conftest import HOSTILE, SOURCES


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


@pytest.fixture
def book(run, protocol):
    return SampleBook.open(run, protocol.pairs, seed=protocol.review.seed)


@pytest.fixture
def html(protocol, book, folder):
    return write_page(protocol, book, folder).read_text()


def test_nothing_tells_which_side_was_selected(html):
    """The page holds no id, path, source, row or role."""
    templates = "".join(re.findall(r"<template.*?</template>", html, flags=re.DOTALL))
    words = [*SOURCES[:2], "signs", "secret", "selected", "control", "repeat", "compare", "shuffled", "delta"]
    assert not [word for word in words if word in re.sub('base64,[^"]*', "", templates).lower()]
    assert not re.findall("secret|charts|scenes|signs", re.sub('base64,[^"]*', "", html))


def test_the_page_depends_on_what_is_shown_alone(protocol, book, html, tmp_path):
    """The same review with the sides' roles exchanged gives the same bytes."""
    pairs = tuple(
        replace(
            pair,
            target=pair.target if pair.kind == "shuffled" else other_side(pair.target),
            kind="compare" if pair.kind == "repeat" else pair.kind,
            source="other",
        )
        for pair in protocol.pairs
    )
    exchanged = replace(protocol, pairs=pairs, review=replace(protocol.review, selection="", against="left"))
    assert write_page(exchanged, book, tmp_path).read_text() == html


def test_all_pairs_are_there_in_their_order(protocol, html):
    tags = Tags(html)
    assert tags.values("template", "data-pair") == [pair.token for pair in protocol.pairs]
    n_shown = 2 * len(protocol.pairs)
    images = [uri for uri in tags.values("img", "src") if uri.startswith("data:image/webp;base64,")]
    assert len(images) == len(tags.values("img", "src")) == n_shown


def test_texts_of_the_data_are_escaped(html):
    assert HOSTILE not in html
    assert "&lt;script&gt;" in html
    assert "</dd>Colour" not in html
    tags = Tags(html)
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]


def test_the_policy_lets_nothing_in_or_out(html):
    tags = Tags(html)
    (policy,) = [tag["content"] for _, tag in tags.found if tag.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert (rules["default-src"], rules["img-src"], rules["form-action"]) == ("'none'", "data:", "'none'")
    assert "connect-src" not in rules
    assert "unsafe" not in policy
    assert not re.findall(r"https?://(?!www\.w3\.org)", html)
    assert [tag.get("type") for name, tag in tags.found if name == "script"][1:] == ["application/json", None]


def test_an_image_that_has_gone(protocol, book, folder, run):
    images = run.path.parent / "images"
    hidden = images.rename(images.with_name("hidden"))
    try:
        html = write_page(protocol, book, folder).read_text()
    finally:
        hidden.rename(images)
    assert "This image can't be shown." in html
    assert "secret" not in html


def test_the_protocol_comes_back(protocol, folder):
    assert Protocol.read(folder) == protocol


def test_the_same_choices_keep_the_pairs(protocol, run, scored, folder):
    assert begin_review(run, folder, scored / "kept.json", n_pairs=20) == protocol


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_pairs": 30}, "pairs"),
        ({"seed": 1}, "seed"),
        ({"against": "left"}, "against"),
        ({"against": "rival.json"}, "against, against_sha256"),
        ({"selection": "rival.json"}, "selection_sha256, selection"),
    ],
)
def test_another_choice_is_refused_and_named(protocol, run, scored, folder, change, named):
    paths = {name: scored / value if str(value).endswith("json") else value for name, value in change.items()}
    wanted = {"selection": scored / "kept.json", "n_pairs": 20} | paths
    with pytest.raises(ArtifactError, match=f"holds a review with other {named};"):
        begin_review(run, folder, **wanted)


def test_another_run_is_refused(protocol, scored, folder, run):
    with pytest.raises(ArtifactError, match="holds a review with other manifest_sha256"):
        begin_review(RunFolder.open(scored / "another"), folder, scored / "another.json", n_pairs=20)
    with pytest.raises(ArtifactError, match="made of another run"):
        begin_review(run, folder.with_name("new"), scored / "another.json")
    assert not folder.with_name("new").exists()


@pytest.mark.parametrize("counts", [{"n_pairs": 0}, {"n_pairs": 1001}])
def test_too_few_or_many(run, scored, folder, counts):
    with pytest.raises(SettingsError, match="expected 1 "):
        begin_review(run, folder, scored / "kept.json", **counts)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "a", "review": {}, "pairs": [1]}'])
def test_what_is_no_protocol(folder, text):
    folder.mkdir()
    (folder / PROTOCOL_FILE).write_text(text)
    with pytest.raises(ArtifactError, match="no review of this version"):
        Protocol.read(folder)

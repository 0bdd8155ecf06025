"""What is shown of a row, and a page that is blind, escaped, and closed."""

import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from delta_attnmask.errors import ArtifactError
from delta_attnmask.exporting.run_export import open_scored
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import Place, load_rows
from delta_attnmask.reviewing.handout import reverse, show_sample, write_page
from delta_attnmask.reviewing.protocol import Pair
from tests.reviewing.conftest import HOSTILE, SOURCES, other_side

SAME = Pair("token", 0, 0, "first")  # a check; its first side is the readable one


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
def html(protocol, dataset, folder):
    return write_page(protocol, dataset, folder).read_text()


def test_nothing_tells_which_side_was_selected(html):
    """The page holds no id, path, source, row or role."""
    templates = "".join(re.findall(r"<template.*?</template>", html, flags=re.DOTALL))
    words = [*SOURCES[:2], "signs", "secret", "selected", "control", "check", "compare", "reverse", "delta"]
    assert not [word for word in words if word in re.sub('base64,[^"]*', "", templates).lower()]
    assert not re.findall("secret|charts|scenes|signs", re.sub('base64,[^"]*', "", html))


def test_the_page_depends_on_what_is_shown_alone(protocol, dataset, html, tmp_path):
    """The same review with the sides' roles exchanged gives the same bytes."""
    pairs = tuple(pair if pair.is_check else replace(pair, target=other_side(pair.target)) for pair in protocol.pairs)
    exchanged = replace(protocol, pairs=pairs, selection="", against="left")
    assert write_page(exchanged, dataset, tmp_path).read_text() == html


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


def test_an_image_that_has_gone(protocol, dataset, folder, run):
    images = run.path.parent / "images"
    hidden = images.rename(images.with_name("hidden"))
    try:
        html = write_page(protocol, dataset, folder).read_text()
    finally:
        hidden.rename(images)
    assert "This image can't be shown." in html
    assert "secret" not in html


def test_places_of_several_images_are_marked():
    messages = [{"role": "user", "content": "Is <image> like <image>?"}, {"role": "assistant", "content": "No."}]
    rows = load_rows([{"images": [Image.new("RGB", (8, 8))] * 2, "messages": messages}])
    turns, images = show_sample(rows, Pair("token", 0, 1, "first"), "first")
    assert turns == [("Instruction", "Is [image 1]  like [image 2] ?"), ("Answer", "No.")]
    assert len(images) == 2


def test_reversed_text_is_the_same_text():
    assert reverse("Which color is the car?") == "car? the is color Which"
    assert reverse("No.") == ".oN"
    assert reverse("图中是什么颜色？") == "？色颜么什是中图"


def test_only_one_side_of_a_check_is_reversed(dataset, protocol):
    for pair in protocol.pairs:
        (target, images), (other, same) = (
            show_sample(dataset, pair, side) for side in (pair.target, other_side(pair.target))
        )
        if pair.is_check:
            assert [(speaker, reverse(text)) for speaker, text in target] == other != target
            assert images == same


def read_uri(uri):
    header, _, body = uri.partition(",")
    assert header == "data:image/webp;base64"
    return b64decode(body)


def test_images_are_encoded_anew(dataset, run):
    _, (uri,) = show_sample(dataset, Pair("token", 3, 4, "first"), "first")
    assert b"secret" not in read_uri(uri)
    assert b"secret" in (run.path.parent / "images/secret-3.png").read_bytes()
    assert Image.open(BytesIO(read_uri(uri))).size == (24, 16)


def test_large_images_are_small_files_without_metadata(tmp_path, run):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    tagged = Image.fromarray(pixels).resize((1536, 1024))
    exif = tagged.getexif()
    exif[0x010E] = "secret"
    tagged.save(tmp_path / "secret-0.png", "jpeg", exif=exif)
    _, (uri,) = show_sample(open_scored(run, Place(images=tmp_path)), SAME, "first")
    assert Image.open(BytesIO(read_uri(uri))).size == (1024, 683)
    assert b"secret" not in read_uri(uri)
    assert len(read_uri(uri)) <= 120_000


def test_data_that_moved(run, protocol, tmp_path, scored, dataset):
    moved = tmp_path / "moved.json"
    moved.write_bytes((scored / "data.json").read_bytes())
    small = open_scored(run, Place(moved, image_limits=ImageLimits(max_bytes=10)))
    assert show_sample(small, protocol.pairs[0], "first") == (show_sample(dataset, protocol.pairs[0], "first")[0], [""])


def test_a_row_that_the_data_lacks(dataset):
    with pytest.raises(ArtifactError, match="row 500 of the review can't be read"):
        show_sample(dataset, Pair("token", 500, 4, "first"), "first")

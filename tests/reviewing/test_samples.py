"""What is shown of a row, and what isn't."""

from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import Place
from delta_attnmask.records import ImageRef, Record, Turn
from delta_attnmask.reviewing.protocol import other_side
from delta_attnmask.reviewing.samples import Sample, SampleBook, ShownTurn, show_record, shuffle_words


@pytest.fixture
def book(run, protocol):
    return SampleBook.open(run, protocol.pairs, seed=protocol.review.seed)


def test_turns_as_they_are_read():
    turns = (Turn("system", ("Be brief.",)), Turn("user", (None, "What?")), Turn("assistant", ("A bear.",)))
    shown = show_record(Record(0, "key", id="secret", source="secret", turns=turns, images=(ImageRef("a/x.png"),)))
    assert [(turn.speaker, turn.text) for turn in shown.turns] == [
        ("System", "Be brief."),
        ("Instruction", "What?"),
        ("Answer", "A bear."),
    ]
    assert "secret" not in repr(shown)


def test_places_of_several_images_are_marked():
    turns = (Turn("user", ("Is ", None, "like ", None, "?")), Turn("assistant", ("No.",)))
    shown = show_record(Record(0, "key", turns=turns, images=(ImageRef("a.png"), ImageRef("b.png"))))
    assert shown.turns[0].text == "Is [image 1] like [image 2] ?"


def test_shuffled_words_are_the_same_words():
    sample = Sample((ShownTurn("Instruction", "one two three"), ShownTurn("Answer", "yes")), ())
    shuffled = shuffle_words(sample, "seed")
    assert shuffled == shuffle_words(sample, "seed")
    assert shuffled.turns[0].text != "one two three"
    assert sorted(shuffled.turns[0].text.split()) == ["one", "three", "two"]
    assert shuffled.turns[1].text == "yes"  # nothing to shuffle
    assert shuffle_words(Sample((ShownTurn("Answer", "no no no"),), ()), "seed").turns[0].text == "no no no"


def test_only_the_side_that_is_to_be_shuffled_is(book, protocol):
    for pair in protocol.pairs:
        target, other = book.sample(pair, pair.target), book.sample(pair, other_side(pair.target))
        if pair.kind == "shuffled":
            assert target != other
            assert sorted(target.turns[0].text.split()) == sorted(other.turns[0].text.split())


def read_uri(uri):
    header, _, body = uri.partition(",")
    assert header == "data:image/webp;base64"
    return b64decode(body)


def to_image(uri):
    return Image.open(BytesIO(read_uri(uri)))


def test_images_are_made_anew(book, run):
    uri = book.embed((ImageRef("secret-3.png"),))
    source = run.path.parent / "images/secret-3.png"
    assert b"secret" not in read_uri(uri)
    assert b"secret" in source.read_bytes()
    shown = to_image(uri).convert("RGB")
    assert (shown.size, shown.getpixel((0, 0))) == ((24, 16), Image.open(source).getpixel((0, 0)))  # lossless
    assert to_image(book.embed((ImageRef("secret-3.png"), ImageRef("secret-5.png")))).size == (48, 16)
    assert to_image(book.embed(())).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_large_images_are_small_files_without_metadata(tmp_path, run):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    tagged = Image.fromarray(pixels).resize((3000, 2000))
    exif = tagged.getexif()
    exif[0x010E] = "secret"
    tagged.save(tmp_path / "large.jpg", exif=exif)
    uri = SampleBook.open(run, (), seed=0, place=Place(images=tmp_path)).embed((ImageRef("large.jpg"),))
    assert to_image(uri).size == (1024, 683)
    assert b"secret" not in read_uri(uri)
    assert len(read_uri(uri)) <= 120_000


@pytest.mark.parametrize("reference", ["../run/manifest.json", "/etc/passwd", "http://127.0.0.1/x.png", "none.png"])
def test_images_outside_the_folder_are_not_shown(book, reference):
    assert book.embed((ImageRef(reference),)) == ""


def test_other_data_is_refused(run, protocol, tmp_path, scored):
    changed = tmp_path / "data.json"
    changed.write_bytes((scored / "data.json").read_bytes() + b"\n")
    with pytest.raises(ArtifactError, match="is not the file that was scored"):
        SampleBook.open(run, protocol.pairs, seed=0, place=Place(changed))
    moved = tmp_path / "moved.json"
    moved.write_bytes((scored / "data.json").read_bytes())
    pair = protocol.pairs[0]
    book = SampleBook.open(run, protocol.pairs, seed=0, place=Place(moved, image_limits=ImageLimits(max_bytes=10)))
    assert book.sample(pair, "first") == SampleBook.open(run, protocol.pairs, seed=0).sample(pair, "first")
    assert book.embed(book.sample(pair, "first").images) == ""  # larger than allowed

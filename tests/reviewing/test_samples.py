"""What is shown of a row, and what isn't."""

from io import BytesIO

import pytest
from PIL import Image

from delta_attnmask.errors import ArtifactError, RowError
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.records import Record, Turn
from delta_attnmask.reviewing.protocol import other_side
from delta_attnmask.reviewing.samples import Sample, SampleBook, ShownTurn, show_record, shuffle_words


@pytest.fixture
def book(run, store):
    return SampleBook.open(run, store.pairs(), seed=store.review.seed)


def test_turns_as_they_are_read():
    turns = (Turn("system", ("Be brief.",)), Turn("user", (None, "What?")), Turn("assistant", ("A bear.",)))
    shown = show_record(Record(0, "key", id="secret", source="secret", turns=turns, images=("a/x.png",)))
    assert [(turn.speaker, turn.text) for turn in shown.turns] == [
        ("System", "Be brief."),
        ("Instruction", "What?"),
        ("Answer", "A bear."),
    ]
    assert "secret" not in repr(shown)


def test_places_of_several_images_are_marked():
    turns = (Turn("user", ("Is ", None, "like ", None, "?")), Turn("assistant", ("No.",)))
    shown = show_record(Record(0, "key", turns=turns, images=("a.png", "b.png")))
    assert shown.turns[0].text == "Is [image 1] like [image 2] ?"


def test_shuffled_words_are_the_same_words():
    sample = Sample((ShownTurn("Instruction", "one two three"), ShownTurn("Answer", "yes")), ())
    shuffled = shuffle_words(sample, "seed")
    assert shuffled == shuffle_words(sample, "seed")
    assert shuffled.turns[0].text != "one two three"
    assert sorted(shuffled.turns[0].text.split()) == ["one", "three", "two"]
    assert shuffled.turns[1].text == "yes"  # nothing to shuffle
    assert shuffle_words(Sample((ShownTurn("Answer", "no no no"),), ()), "seed").turns[0].text == "no no no"


def test_only_the_side_that_is_to_be_shuffled_is(book, store):
    for pair in store.pairs():
        target, other = book.samples(pair, pair.target), book.samples(pair, other_side(pair.target))
        if pair.kind == "shuffled":
            assert target != other
            assert sorted(target[0].turns[0].text.split()) == sorted(other[0].turns[0].text.split())
        assert len(target) == len(pair.side(pair.target))


def test_images_are_made_anew(book, run):
    data, kind = book.encode_image(("secret-3.png",), 512)
    image = Image.open(BytesIO(data))
    assert (kind, image.size, image.info) == ("image/png", (24, 16), {})
    assert b"secret" not in data
    assert b"secret" in (run.path.parent / "images/secret-3.png").read_bytes()
    assert Image.open(BytesIO(book.encode_image(("secret-3.png", "secret-4.png"), 512)[0])).size == (48, 16)
    assert Image.open(BytesIO(book.encode_image(("secret-3.png",), 12)[0])).size == (12, 8)
    assert Image.open(BytesIO(book.encode_image((), 512)[0])).getpixel((0, 0)) == (255, 255, 255)


def test_large_images_are_jpeg_without_metadata(tmp_path, run, store):
    tagged = Image.new("RGB", (3000, 2000), "red")
    exif = tagged.getexif()
    exif[0x010E] = "secret"
    tagged.save(tmp_path / "large.jpg", exif=exif)
    book = SampleBook.open(run, (), seed=0, images=tmp_path)
    data, kind = book.encode_image(("large.jpg",), 1024)
    assert (kind, Image.open(BytesIO(data)).size) == ("image/jpeg", (1024, 683))
    assert b"secret" not in data


def test_images_outside_the_folder_are_refused(book, run):
    for reference in ("../run/manifest.json", "/etc/passwd", "http://127.0.0.1/x.png", "none.png"):
        with pytest.raises(RowError):
            book.encode_image((reference,), 512)


def test_other_data_is_refused(run, store, tmp_path, scored):
    changed = tmp_path / "data.json"
    changed.write_bytes((scored / "data.json").read_bytes() + b"\n")
    with pytest.raises(ArtifactError, match="isn't what was scored"):
        SampleBook.open(run, store.pairs(), seed=0, data=changed)
    moved = tmp_path / "moved.json"
    moved.write_bytes((scored / "data.json").read_bytes())
    pair = store.pairs()[0]
    book = SampleBook.open(run, store.pairs(), seed=0, data=moved, limits=ImageLimits(max_bytes=10))
    assert book.samples(pair, "first") == SampleBook.open(run, store.pairs(), seed=0).samples(pair, "first")
    with pytest.raises(RowError, match="more than 10 bytes"):
        book.encode_image(book.samples(pair, "first")[0].images, 512)

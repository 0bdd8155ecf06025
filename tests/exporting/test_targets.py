"""A record survives the way into every format and back, or is refused; it never becomes another one."""

import io
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delta_attnmask.errors import RowError
from delta_attnmask.reading.containers import RawRow
from delta_attnmask.reading.conversation import set_apart
from delta_attnmask.reading.formats import TARGETS, TRL_SINGLE, Target, choose_format, read_record
from delta_attnmask.records import ImageRef, Record, Turn

ALL = [*TARGETS.values(), TRL_SINGLE]

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
pieces = st.one_of(
    words, st.sampled_from(["<image>", "<video>", "\n", " ", "<img>x</img>", "<|im_end|>", "\0", "</s>", '"}]'])
)
texts = st.lists(pieces, max_size=4).map("".join)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Any good record: what the readers give, in which images and texts are set apart."""
    turns = [Turn("system", (draw(words.filter(str.strip)),))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        parts = draw(st.lists(st.one_of(st.none(), texts), max_size=4))
        turns.append(Turn("user", set_apart(parts)))
        turns.append(Turn("assistant", (draw(texts.filter(str.strip)),)))
    n_images = sum(turn.parts.count(None) for turn in turns)
    paths = words.filter(lambda text: text and not text.startswith("data:"))
    images = tuple(map(ImageRef, draw(st.lists(paths, min_size=n_images, max_size=n_images))))
    return Record(0, "k" * 64, draw(words), draw(words), tuple(turns), images)


def whole(record: Record) -> tuple[object, ...]:
    """What must come back: neighbouring texts count as one."""
    merged = []
    for turn in record.turns:
        parts: list[str | None] = []
        for part in turn.parts:
            if part is not None and parts and parts[-1] is not None:
                parts[-1] += part
            else:
                parts.append(part)
        merged.append((turn.role, set_apart(parts)))
    return record.id, merged, record.images


@given(record=records())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_there_and_back(record: Record):
    n_said = sum(comes_back(target, record) for target in ALL)
    assert n_said >= 4  # those with typed content can say everything


def comes_back(target: Target, record: Record) -> bool:
    """Whether the target can say the record; if so, it must say the same."""
    try:
        fields = target.convert(record, [ref.path for ref in record.images])
    except RowError:
        return False
    raw = json.dumps(fields, ensure_ascii=False).encode()
    back = read_record(target.format, RawRow(0, 0, raw, json.load(io.BytesIO(raw))))
    assert back.reason == ""
    assert whole(back) == whole(record)
    assert back.source == record.source or not record.source
    return True


PLAIN = Record(0, "k", "1", "s", (Turn("user", (None, "Q")), Turn("assistant", ("A",))), (ImageRef("x"),))


@pytest.mark.parametrize("target", ALL, ids=lambda target: f"{target.name}-{target.format.spec}")
def test_ordinary_records_are_never_refused(target):
    for turns, images in (
        (PLAIN.turns, ("x",)),
        ((Turn("user", ("Q",)), Turn("assistant", ("A\nB",))), ()),
        ((Turn("user", (None, None, "Q <b>")), Turn("assistant", (" A",))), ("x", "z")),
        ((Turn("user", ("a ", None, " b ", None)), Turn("assistant", ("A",))), ("x", "y")),
        ((Turn("system", ("S",)), *PLAIN.turns, Turn("user", ("Q",)), Turn("assistant", ("<|im_end|>",))), ("x",)),
        ((Turn("user", (None,)), Turn("assistant", ("A",))), ("x",)),
        ((Turn("user", ("a", "b")), Turn("assistant", ("A",))), ()),
    ):
        target.convert(replace(PLAIN, turns=turns, images=tuple(map(ImageRef, images))), images)


@pytest.mark.parametrize("name", ["llava", "llama-factory", "ms-swift"])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_literal_tag_is_refused_where_it_would_become_an_image(name, role):
    turns = tuple(Turn(turn.role, (*turn.parts, " <image>")) if turn.role == role else turn for turn in PLAIN.turns)
    with pytest.raises(RowError, match="<image>"):
        TARGETS[name].convert(replace(PLAIN, turns=turns), ("x",))
    two = tuple(Turn(turn.role, tuple("<image>" if part is None else part for part in turn.parts)) for turn in turns)
    with pytest.raises(RowError, match="<image>"):
        TARGETS[name].convert(replace(PLAIN, turns=two, images=()), ())
    for other in ("messages", "trl", "parquet", "webdataset"):
        TARGETS[other].convert(replace(PLAIN, turns=turns), ("x",))


@pytest.mark.parametrize(
    ("name", "text"),
    [("llama-factory", "<video>"), ("ms-swift", "<audio>"), ("ms-swift", "<bbox>"), ("ms-swift", "<img>/etc/x</img>")],
)
def test_what_means_something_else_to_a_trainer_is_refused(name, text):
    turns = (Turn("user", (f"Q {text}",)), PLAIN.turns[1])
    with pytest.raises(RowError, match="means something else"):
        TARGETS[name].convert(replace(PLAIN, turns=turns, images=()), ())
    TARGETS["llava"].convert(replace(PLAIN, turns=turns, images=()), ())


def test_how_each_writes_an_image():
    def first(name: str) -> object:
        fields = TARGETS[name].convert(PLAIN, ("x",))
        message = fields.get("messages", fields.get("conversations"))[0]
        return message.get("content", message.get("value"))

    assert first("llava") == "<image>\nQ"
    assert first("llama-factory") == first("ms-swift") == "<image>Q"
    assert first("messages") == [{"type": "image"}, {"type": "text", "text": "Q"}]


def test_what_is_written_is_recognised(tmp_path):
    for target in ALL:
        rows = [RawRow(0, 0, b"", target.convert(PLAIN, ("x",)))]
        assert choose_format(None, rows, tmp_path / "x").spec == target.format.spec

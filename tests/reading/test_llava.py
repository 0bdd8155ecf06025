"""LLaVA rows become records; every fault becomes a reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.containers import RawRow
from delta_attnmask.reading.conversation import split_at_tags
from delta_attnmask.reading.formats import FORMATS, read_record
from delta_attnmask.records import ImageRef, Record, Turn


def read(value: Any) -> Record:
    return read_record(FORMATS["llava"], RawRow(3, 0, json.dumps(value).encode(), value))


def human(text: Any) -> dict[str, Any]:
    return {"from": "human", "value": text}


def gpt(text: Any) -> dict[str, Any]:
    return {"from": "gpt", "value": text}


def row(*conversation: Any, **fields: Any) -> dict[str, Any]:
    return fields | {"conversations": list(conversation)}


def test_published_example():
    record = read(row(human("<image>\nWhat?"), gpt("A bear."), id="9", image="a/x.jpg"))
    assert record.turns == (Turn("user", (None, "What?")), Turn("assistant", ("A bear.",)))
    assert (record.row, record.id, record.source, record.images, record.reason) == (
        3,
        "9",
        "a",
        (ImageRef("a/x.jpg"),),
        "",
    )
    assert len(record.key) == 64


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<image>\nWhat?", (None, "What?")),
        ("What?\n<image>", ("What?", None)),
        ("<image>What?", (None, "What?")),
        ("<image>\n<image>\nWhich?\n", (None, None, "Which?\n")),
        ("Is <image> like <image>\n?", ("Is ", None, " like ", None, "\n?")),
        ("<image>\n", (None,)),
        (" \n<image>", (None,)),
        ("Plain.\n", ("Plain.\n",)),
        ("", ()),
    ],
)
def test_tags_are_split_off(text, parts):
    assert split_at_tags(text) == parts


@given(st.lists(st.sampled_from(["<image>", "\n", " ", "a", "b c"]), max_size=8))
def test_splitting_keeps_every_tag_and_every_word_in_order(pieces):
    parts = split_at_tags("".join(pieces))
    assert parts.count(None) == pieces.count("<image>")
    kept = "".join("<image>" if part is None else part for part in parts)
    assert "".join(kept.split()) == "".join("".join(pieces).split())


def test_several_turns_images_and_a_system_turn():
    record = read(
        row(
            {"from": "system", "value": "Be brief."},
            human("<image>\n<image>\nSame?"),
            gpt("No."),
            {"from": "user", "value": "And <image>?"},
            {"from": "assistant", "value": "Yes."},
            images=["1.jpg", "2.jpg", "3.jpg"],
        )
    )
    assert record.reason == ""
    assert [turn.role for turn in record.turns] == ["system", "user", "assistant", "user", "assistant"]
    assert record.images == (ImageRef("1.jpg"), ImageRef("2.jpg"), ImageRef("3.jpg"))


@pytest.mark.parametrize("image", [{}, {"image": None}, {"image": ""}, {"image": []}, {"images": []}, {"video": ""}])
def test_text_only(image):
    record = read(row(human("Hi"), gpt("Hello."), **image))
    assert (record.reason, record.images) == ("", ())


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({"source": "s", "task_name": "t"}, "s"),
        ({"task_name": "vf"}, "vf"),
        ({"dataset": "d", "source": 3}, "d"),
        ({"image": "coco/train/x.jpg"}, "coco"),
        ({"image": "./coco/x.jpg"}, "coco"),
        ({"image": "/data/x.jpg"}, ""),
        ({"image": "x.jpg"}, ""),
        ({"image": "data:image/png;base64,AA/BB/C="}, ""),
        ({"image": "https://host/x.jpg"}, ""),
        ({}, ""),
    ],
)
def test_source(fields, source):
    text = "<image>\nQ" if "image" in fields else "Q"
    assert read(row(human(text), gpt("A"), **fields)).source == source


@pytest.mark.parametrize(
    ("value", "label"),
    [("9", "9"), (9, "9"), (1.5, "1.5"), (None, ""), ([1], ""), ("\ud800x", "?x"), ("y" * 900, "y" * 500)],
)
def test_id(value, label):
    assert read(row(human("Q"), gpt("A"), id=value)).id == label


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (7, "expected an object, got a number"),
        (None, "expected an object, got nothing"),
        ([], "expected an object, got a list"),
        ({}, "no `conversations`"),
        (row(), "empty conversation"),
        ({"conversations": "x"}, "`conversations` must be a list, got a string"),
        (row("hi"), "turn 1 must be an object, got a string"),
        (row(human("Q")), "no assistant turn"),
        (row(human("Q"), gpt(None)), "turn 2: `value` must be a string, got nothing"),
        (row(human(True), gpt("A")), "turn 1: `value` must be a string, got a boolean"),
        (row({"value": "Q"}, gpt("A")), "got nothing"),
        (row({"from": "bot\x1b[31m", "value": "Q"}), r"got 'bot\x1b[31m'"),
        (row(human("Q"), human("Q"), gpt("A")), "turn 2 is user's, expected assistant's"),
        (row(gpt("A"), human("Q"), gpt("A")), "turn 1 is assistant's, expected user's"),
        (row(human("Q"), gpt("A"), {"from": "system", "value": "S"}), "turn 3 is system's"),
        (row(human("Q"), gpt("A"), human("Q")), "the last turn is the user's"),
        (row(human("Q"), gpt(" \n")), "turn 2: the answer is empty"),
        (row(human("Q"), gpt("A <image>"), image="x.jpg"), "turn 2: <image> in assistant's text"),
        (row({"from": "system", "value": "<image>"}, human("Q"), gpt("A"), image="x"), "<image> in system's text"),
        (row(human("<image> Q"), gpt("A")), "1 <image> for 0 images"),
        (row(human("Q"), gpt("A"), image="x.jpg"), "0 <image> for 1 image"),
        (row(human("<image><image>"), gpt("A"), image=["x.jpg"]), "2 <image> for 1 image"),
        (row(human("<image>"), gpt("A"), image=5), "`image` must be a path or a list of paths, got a number"),
        (row(human("<image>"), gpt("A"), image=["x", ""]), "got an empty string"),
        (row(human("<image>"), gpt("A"), image={"a": 1}), "got an object"),
        (row(human("<image>"), gpt("A"), image="x", images=["y"]), "`image` and `images` differ"),
        (row(human("<image>"), gpt("A"), video="x.mp4"), "video isn't supported"),
        (row(human("Q \ud800"), gpt("A")), "turn 1: a lone surrogate"),
        (row(human("<image>"), gpt("A"), image="\udcff.jpg"), "`image`: a lone surrogate"),
    ],
)
def test_fault_becomes_the_reason(value, reason):
    record = read(value)
    assert reason in record.reason
    assert record.turns == ()
    record.reason.encode()


def test_a_failed_row_keeps_its_label_and_source():
    record = read(row(human("Q"), id=4, task_name="vf"))
    assert (record.id, record.source) == ("4", "vf")


def test_a_row_that_could_not_be_parsed_keeps_its_reason():
    assert (
        read_record(FORMATS["llava"], RawRow(0, 0, b"{", None, RowError(ReasonCode.NOT_JSON, "not JSON"))).reason
        == "not JSON"
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
turns = st.fixed_dictionaries(
    {}, optional={"from": st.sampled_from(["human", "gpt"]) | json_values, "value": json_values}
)


@given(
    st.fixed_dictionaries(
        {"conversations": st.lists(turns | json_values, max_size=4) | json_values},
        optional={"image": json_values, "images": json_values, "id": json_values, "source": json_values},
    )
)
def test_nothing_raises(value):
    record = read(value)
    assert bool(record.reason) != bool(record.turns)
    for text in (record.reason, record.id, record.source, *(ref.path for ref in record.images)):
        text.encode()


def test_recognition():
    assert FORMATS["llava"].recognises({"conversations": 5})
    assert not FORMATS["llava"].recognises({"messages": []})

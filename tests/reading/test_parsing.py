"""What single rows of the formats say, and why faulty ones can't be used."""

from typing import Any

import pytest

from delta_attnmask.reading.containers import RawRow
from delta_attnmask.reading.formats import FORMATS, read_record
from delta_attnmask.reading.llama_factory import llama_factory_format
from delta_attnmask.records import Record, Turn

Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


def read(format: str, **fields: Any) -> Record:
    return read_record(FORMATS[format], RawRow(0, 0, b"", fields))


def content(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(parts)}


def text(value: Any) -> dict[str, Any]:
    return {"type": "text", "text": value}


IMAGE = {"type": "image"}


def named(record: Record) -> tuple[str | bytes, ...]:
    return tuple(ref.data or ref.path for ref in record.images)


@pytest.mark.parametrize(
    ("fields", "parts", "images"),
    [
        ({"messages": [{"role": "user", "content": "a <image> b"}, A], "image": "x"}, ("a ", None, " b"), ("x",)),
        ({"messages": [Q, A], "images": ["x", "y"]}, (None, None, "Q"), ("x", "y")),
        ({"messages": [content(IMAGE, text("a")), A], "images": ["x"]}, (None, "a"), ("x",)),
        ({"messages": [content(text("a"), IMAGE | {"text": None}), A], "images": ["x"]}, ("a", None), ("x",)),
        ({"messages": [content(IMAGE | {"image": "x"}, text("<image>")), A]}, (None, "<image>"), ("x",)),
        ({"messages": [content({"type": "image_url", "image_url": "x"}, text("a")), A]}, (None, "a"), ("x",)),
        ({"messages": [content({"type": "image", "path": "x"}, text("\na")), A]}, (None, "a"), ("x",)),
        ({"messages": [content({"type": "image", "image": {"path": "x", "bytes": None}}), A]}, (None,), ("x",)),
        ({"messages": [Q, A], "images": [{"bytes": "AAAA", "path": "x"}]}, (None, "Q"), (bytes(3),)),
        ({"messages": [content(text("a"), text("b")), A]}, ("a", "b"), ()),
    ],
)
def test_messages(fields, parts, images):
    record = read("messages", **fields)
    assert (record.reason, record.turns[0].parts, named(record)) == ("", parts, images)


def test_own_images_and_those_of_the_row_keep_their_places():
    own = {"type": "image", "image": "own"}
    record = read("messages", messages=[content(IMAGE, own, text("a"), IMAGE), A], images=["1", "2"])
    assert (record.reason, named(record)) == ("", ("1", "own", "2"))


def test_a_literal_tag_in_typed_content_is_text():
    record = read("messages", messages=[content(text("What is <image>?")), content(text("<image>!"), role="assistant")])
    assert record.turns == (Turn("user", ("What is <image>?",)), Turn("assistant", ("<image>!",)))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "no `messages`"),
        ({"messages": []}, "empty conversation"),
        ({"messages": {}}, "`messages` must be a list, got an object"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "turn 1: `role` must be one of"),
        ({"messages": [Q, {"role": "assistant", "content": None}]}, "turn 2: `content` must be a string, got nothing"),
        ({"messages": [content("x"), A]}, "a part of `content` must be an object, got a string"),
        ({"messages": [content({"type": "video", "video": "x.mp4"}), A]}, "video isn't supported"),
        ({"messages": [content({"type": "input_audio"}), A]}, "audio isn't supported"),
        ({"messages": [content({"type": "doc"}), A]}, "must be text, image or image_url, got 'doc'"),
        ({"messages": [content({"text": "x"}), A]}, "must be text, image or image_url, got nothing"),
        ({"messages": [content(text(5)), A]}, "turn 1: `text` must be a string, got a number"),
        ({"messages": [content(text("\ud800")), A]}, "turn 1: a lone surrogate"),
        ({"messages": [content(IMAGE), A]}, "1 <image> for 0 images"),
        ({"messages": [content(IMAGE), A], "images": ["x", "y"]}, "1 <image> for 2 images"),
        ({"messages": [content(IMAGE | {"image": 5}), A]}, "turn 1: image` must be a path"),
        ({"messages": [content({"type": "image_url", "image_url": {}}), A]}, "1 <image> for 0 images"),
        (
            {"messages": [Q, content(text("A"), IMAGE, role="assistant")], "images": ["x"]},
            "<image> in assistant's text",
        ),
        ({"messages": [Q, A], "videos": ["x.mp4"]}, "video isn't supported"),
        ({"messages": [Q, A], "audios": ["x.wav"]}, "audio isn't supported"),
        ({"messages": [Q, A], "images": [{"a": 1}]}, "got an object"),
    ],
)
def test_faulty_messages(fields, reason):
    record = read("messages", **fields)
    assert reason in record.reason
    assert record.turns == record.images == ()


@pytest.mark.parametrize(
    ("format", "fields", "reason"),
    [
        ("prompt-completion", {"prompt": "Q"}, "no `completion`"),
        ("prompt-completion", {"prompt": 5, "completion": "A"}, "`prompt` must be a list, got a number"),
        ("query-response", {"query": "Q"}, "no `response`"),
        ("query-response", {"query": "Q", "response": 5}, "`response` must be a string, got a number"),
        ("query-response", {"query": "Q", "response": "A", "history": [["a"]]}, "`history` 1 must be a list of a"),
        ("query-response", {"query": "Q", "response": "A", "history": "a"}, "`history` 1 must be a list"),
        ("query-response", {"query": "Q", "response": "A", "history": [["a", 5]]}, "`history` 1 must be a string"),
        ("query-response", {"query": "Q", "response": ""}, "turn 2: the answer is empty"),
        ("cauldron", {"texts": [5], "images": []}, "`texts` 1 must be an object"),
        ("cauldron", {"texts": [], "images": []}, "empty conversation"),
        ("minigpt4", {"image_id": "2"}, "no `caption`"),
        ("minigpt4", {"image_id": True, "caption": "A"}, "`image_id` must be a string or a number, got a boolean"),
        ("minigpt4", {"image_id": "\ud800", "caption": "A"}, "`image_id`: a lone surrogate"),
        ("minigpt4", {"image_id": "2", "caption": ""}, "turn 2: the answer is empty"),
    ],
)
def test_other_faulty_rows(format, fields, reason):
    assert reason in read(format, **fields).reason


def test_plain_texts_and_systems():
    assert [turn.text for turn in read("prompt-completion", prompt="Q", completion="A").turns] == ["Q", "A"]
    record = read("query-response", system="S", query="Q", response="A", images="x.png")
    assert [turn.role for turn in record.turns] == ["system", "user", "assistant"]
    assert record.turns[1].parts == (None, "Q")
    assert read("alpaca", instruction="Q", input="more", output="A").turns[0].text == "Q\nmore"


ENTRY = {"formatting": "sharegpt", "columns": {"messages": "m", "images": "i", "system": "s"}}


def read_entry(entry: dict[str, Any], **fields: Any) -> Record:
    return read_record(llama_factory_format(entry), RawRow(0, 0, b"", fields))


def test_columns_of_an_entry():
    talk = [{"from": "human", "value": "<image>Q"}, {"from": "gpt", "value": "A"}]
    record = read_entry(ENTRY, m=talk, i=["x"], s="S", image="not this")
    assert (record.reason, named(record), record.turns[0].text) == ("", ("x",), "S")
    assert read_entry(ENTRY, m=talk, i=["x"], s=5).reason == "`s` must be a string, got a number"
    assert read_entry(ENTRY, m=talk, i=[]).reason == "1 <image> for 0 images"
    assert read_entry(ENTRY, i=[]).reason == "no `m`"
    assert read_entry(ENTRY, m=[{"from": "human", "value": "Q"}, talk[1]], i=["x"]).reason == "0 <image> for 1 image"


def test_an_entry_without_a_tag_for_the_system_has_no_systems():
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    record = read_entry(ENTRY | {"tags": tags}, m=[{"role": "system", "content": "S"}, Q, A])
    assert "must be one of user, assistant, got 'system'" in record.reason


def test_alpaca_is_what_an_entry_means_without_formatting():
    columns = {"prompt": "q", "response": "a", "images": "i", "history": "h"}
    record = read_entry({"columns": columns}, q="<image>Q", a="A", i=["x"], h=[["B", "C"]])
    assert [turn.text for turn in record.turns] == ["B", "C", "Q", "A"]
    assert named(record) == ("x",)
    assert read_entry({}, instruction="Q", input="R", output="A").turns[0].text == "Q\nR"
    assert read_entry({"columns": columns}, q="Q", a="A", i=["x"]).reason == "0 <image> for 1 image"

"""One question and one answer under their own keys, with earlier exchanges in a history: ms-swift's and Alpaca's.

ms-swift 2: {"system": "…", "history": [["Hi", "Hello"]], "query": "<image>Who?", "response": "Me.", "images": […]}
Alpaca:     {"instruction": "Who?", "input": "", "output": "Me.", "images": […]}
Cauldron:   {"texts": [{"user": "Who?", "assistant": "Me."}], "images": […]}
MiniGPT-4:  {"annotations": [{"image_id": "2", "caption": "A bear."}]}       an image, image/2.jpg, and what it shows

MiniGPT-4's question is a setting, the same for every row; its reader also takes what a WebDataset holds that has a text
beside each image: `{"images": […], "caption": "A bear."}`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.conversation import (
    Conversation,
    Format,
    check_messages,
    check_text,
    find_images,
    kind,
    put_in_front,
    refuse_video,
    require,
    split_at_tags,
)
from delta_attnmask.records import ImageRef, Role, Turn

INSTRUCTION = "Describe this image in detail."


def parse_exchange(
    fields: Mapping[str, Any],
    prompt: str,
    response: str,
    query: str = "",
    history: str = "history",
    system: str = "system",
    *,
    must_place: bool = False,
) -> Conversation:
    """A row whose columns have these names. query: a second part of the question, after a line break.

    must_place: refuse a row with images whose texts have no `<image>`, instead of putting them in front.
    """
    require(fields, prompt, response)
    images = find_images(fields)
    turns = [_turn("system", text)] if (text := read_optional(fields, system)) else []
    pairs = fields.get(history) or []
    for n, pair in enumerate(pairs if isinstance(pairs, list) else [None], start=1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(
                ReasonCode.WRONG_TYPE, f"`{history}` {n} must be a list of a question and an answer, got {kind(pair)}"
            )
        texts = [check_text(text, f"`{history}` {n}", f"`{history}` {n}") for text in pair]
        turns += [_turn("user", texts[0]), _turn("assistant", texts[1])]
    asked = "\n".join(text for name in (prompt, query) if (text := read_optional(fields, name)))
    turns += [_turn("user", asked), _turn("assistant", read_optional(fields, response))]
    return Conversation(tuple(turns) if must_place else put_in_front(tuple(turns), len(images)), images)


def parse_cauldron(fields: Mapping[str, Any]) -> Conversation:
    """The Cauldron's and FineVision's `texts`, each with a user's and an assistant's text; images come first."""
    images = find_images(fields)
    turns = []
    for n, pair in enumerate(check_messages(fields.get("texts"), "texts"), start=1):
        if not isinstance(pair, dict):
            raise RowError(ReasonCode.WRONG_TYPE, f"`texts` {n} must be an object, got {kind(pair)}")
        turns += [_turn("user", read_optional(pair, "user")), _turn("assistant", read_optional(pair, "assistant"))]
    return Conversation(put_in_front(tuple(turns), len(images)), images)


def caption_format(instruction: str = INSTRUCTION) -> Format:
    """MiniGPT-4's. instruction: what the user asks in every row; part of the `spec`, as it changes every score."""
    parse = partial(_parse_caption, instruction=instruction)
    return Format(f"minigpt4:{instruction}", parse, ("caption", "image_id image images"))


def _parse_caption(fields: Mapping[str, Any], instruction: str) -> Conversation:
    require(fields, "caption")
    refuse_video(fields)
    images = _find_image(fields["image_id"]) if "image_id" in fields else find_images(fields)
    caption = check_text(fields["caption"], "`caption`", "`caption`")
    question = Turn("user", (*(None,) * len(images), instruction))
    return Conversation((question, Turn("assistant", (caption,) if caption else ())), images)


def read_optional(fields: Mapping[str, Any], name: str) -> str:
    """A text that may be missing or null."""
    value = fields.get(name) if name else None
    return "" if value is None else check_text(value, f"`{name}`", f"`{name}`")


def _turn(role: Role, text: str) -> Turn:
    return Turn(role, split_at_tags(text))


def _find_image(label: object) -> tuple[ImageRef]:
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        raise RowError(ReasonCode.BAD_IMAGE_REFERENCE, f"`image_id` must be a string or a number, got {kind(label)}")
    check_text(str(label), "`image_id`", "`image_id`")
    return (ImageRef(f"image/{label}.jpg"),)

r"""Conversations as lists of messages, read and written: LLaVA's, those with roles, and TRL's prompt and completion.

    {"id": "9", "image": "a/x.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A bear."}]}

In LLaVA's format the k-th `<image>` is the k-th image. Also read: `image` or `images` as a string or a list
(Qwen-VL, LLaMA-Factory's ShareGPT), text-only rows, `task_name` (Vision-Flan). A row with an image but no `<image>` is
refused: LLaVA's loader drops the image without a word, Qwen-VL's and LLaMA-Factory's stop.

    {"messages": [{"role": "user", "content": "<image>Who?"}, {"role": "assistant", "content": "Me."}],
     "images": ["1.jpg"]}

The `messages` of LLaMA-Factory, ms-swift, OpenAI and TRL. A text marks its images by `<image>`; one that marks none
while the row has images gets them in front of the first question, as TRL and ms-swift do. Content may also be a list of
typed parts, where `<image>` is a text like any other:

    [{"type": "image"}, {"type": "text", "text": "Who?"}]                            the row's `images` in order
    [{"type": "image", "image": "1.jpg"}, …]                                         the part's own image
    [{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}, …]      OpenAI's

TRL's prompt and completion are each a list of messages or a plain text; together they are one conversation.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.conversation import (
    TAG,
    Conversation,
    MessageKeys,
    check_messages,
    check_text,
    find_images,
    kind,
    put_in_front,
    read_image,
    read_message,
    require,
    set_apart,
    split_at_tags,
)
from delta_attnmask.records import ImageRef, Record, Turn

_LLAVA_KEYS = MessageKeys("from", "value")
LLAVA_NAMES = {"system": "system", "user": "human", "assistant": "gpt"}
MESSAGE_KEYS = MessageKeys("role", "content")
_PAYLOADS = ("image", "image_url", "path", "url")

Written = Sequence[str | ImageRef]  # images by the paths to write, or those inside the file itself


def parse_llava(fields: Mapping[str, Any]) -> Conversation:
    require(fields, "conversations")
    images = find_images(fields)
    turns = []
    for n, message in enumerate(check_messages(fields["conversations"], "conversations"), start=1):
        role, text = read_message(message, n, _LLAVA_KEYS)
        turns.append(Turn(role, split_at_tags(check_text(text, f"turn {n}: `value`", f"turn {n}"))))
    return Conversation(tuple(turns), images)


def parse_messages(fields: Mapping[str, Any]) -> Conversation:
    require(fields, "messages")
    return read_typed(check_messages(fields["messages"], "messages"), find_images(fields))


def parse_completion(fields: Mapping[str, Any]) -> Conversation:
    require(fields, "prompt", "completion")
    messages: list[object] = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        value = fields[name]
        messages += [{"role": role, "content": value}] if isinstance(value, str) else check_messages(value, name)
    return read_typed(messages, find_images(fields))


def read_typed(messages: list[object], images: tuple[ImageRef, ...], keys: MessageKeys = MESSAGE_KEYS) -> Conversation:
    """The conversation of messages with texts or typed parts; `images` fill the places that bring none of their own."""
    rest = iter(images)
    turns, placed = [], list[ImageRef]()
    for n, message in enumerate(messages, start=1):
        role, content = read_message(message, n, keys)
        if isinstance(content, list):
            parts = set_apart([_read_part(part, n, rest, placed) for part in content])
        else:
            parts = split_at_tags(check_text(content, f"turn {n}: `{keys.content}`", f"turn {n}"))
            placed += islice(rest, parts.count(None))
        turns.append(Turn(role, parts))
    return Conversation(put_in_front(tuple(turns), len(images) if not placed else 0), (*placed, *rest))


def _read_part(part: object, n: int, rest: Iterator[ImageRef], placed: list[ImageRef]) -> str | None:
    """A part's text, or None for an image, whose reference is added to `placed`."""
    if not isinstance(part, dict):
        raise RowError(ReasonCode.WRONG_TYPE, f"turn {n}: a part of `content` must be an object, got {kind(part)}")
    name = part.get("type")
    if name == "text":
        return check_text(part.get("text"), f"turn {n}: `text`", f"turn {n}")
    if name in {"image", "image_url"}:
        payload = next((part[key] for key in _PAYLOADS if part.get(key)), None)
        image = read_image(payload, f"turn {n}: image") if payload is not None else next(rest, None)
        placed += [] if image is None else [image]
        return None
    if name in {"video", "video_url", "audio", "audio_url", "input_audio"}:
        raise RowError(
            ReasonCode.MEDIA_UNSUPPORTED, f"{str(name).partition('_')[0].replace('input', 'audio')} isn't supported"
        )
    shown = repr(name[:40]) if isinstance(name, str) else kind(name)
    raise RowError(ReasonCode.WRONG_TYPE, f"turn {n}: a part's `type` must be text, image or image_url, got {shown}")


def write_text(turn: Turn, separator: str = "") -> str:
    """A turn's text with its tags; `separator` goes between an image at either end and the text."""
    texts = [idx for idx, part in enumerate(turn.parts) if part is not None]
    first, last = (texts[0], texts[-1]) if texts else (-1, len(turn.parts))
    pieces = [
        f"{separator if idx > last else ''}{TAG}{separator if idx < first else ''}" if part is None else part
        for idx, part in enumerate(turn.parts)
    ]
    return "".join(pieces)


def write_typed(turn: Turn) -> dict[str, Any]:
    """A message whose content is a list of typed parts."""
    parts = turn.parts or ("",)
    content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
    return {"role": turn.role, "content": content}


def write_llava(record: Record, images: Written) -> dict[str, Any]:
    image = {"image": images[0] if len(images) == 1 else list(images)} if images else {}
    turns = [{"from": LLAVA_NAMES[turn.role], "value": write_text(turn, "\n")} for turn in record.turns]
    return _label(record) | image | {"conversations": turns}


def write_messages(record: Record, images: Written) -> dict[str, Any]:
    return _label(record) | {"images": list(images), "messages": [write_typed(turn) for turn in record.turns]}


def write_tagged(record: Record, images: Written) -> dict[str, Any]:
    """LLaMA-Factory's and ms-swift's messages: the tag takes the image's place, and nothing is put beside it."""
    turns = [{"role": turn.role, "content": write_text(turn)} for turn in record.turns]
    return _label(record) | {"messages": turns, "images": list(images)}


def write_completion(record: Record, images: Written) -> dict[str, Any]:
    """TRL's prompt and completion: what it computes the loss over is the last turn alone."""
    *prompt, completion = (write_typed(turn) for turn in record.turns)
    return _label(record) | {"images": list(images), "prompt": prompt, "completion": [completion]}


def _label(record: Record) -> dict[str, str]:
    return {"id": record.id, "source": record.source}

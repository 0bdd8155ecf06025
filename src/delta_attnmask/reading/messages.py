r"""`messages` of `role` and `content`: LLaMA-Factory's, ms-swift's, OpenAI's and TRL's.

    {"messages": [{"role": "user", "content": "<image>Who?"}, {"role": "assistant", "content": "Me."}],
     "images": ["1.jpg"]}

A text marks its images by `<image>`; one that marks none while the row has images gets them in front of the first
question, as TRL and ms-swift do. Content may also be a list of typed parts, where `<image>` is a text like any other:

    [{"type": "image"}, {"type": "text", "text": "Who?"}]                            the row's `images` in order
    [{"type": "image", "image": "1.jpg"}, …]                                         the part's own image
    [{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}, …]      OpenAI's
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.fields import find_images, read_image
from delta_attnmask.reading.turns import (
    Conversation,
    MessageKeys,
    check_messages,
    check_text,
    kind,
    put_in_front,
    read_message,
    set_apart,
    split_at_tags,
)
from delta_attnmask.records import ImageRef, Turn

MESSAGE_KEYS = MessageKeys("role", "content")
_PAYLOADS = ("image", "image_url", "path", "url")


@dataclass(frozen=True)
class Messages:
    spec: str = "messages"

    def recognises(self, fields: Mapping[str, Any]) -> bool:
        return "messages" in fields

    def parse(self, fields: Mapping[str, Any]) -> Conversation:
        if "messages" not in fields:
            raise RowError(ReasonCode.NO_FIELD, "no `messages`")
        return read_typed(check_messages(fields["messages"], "messages"), find_images(fields))


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
            placed += [image for part, image in zip(filter(_is_image, parts), rest, strict=False)]
        turns.append(Turn(role, parts))
    return Conversation(put_in_front(tuple(turns), len(images) if not placed else 0), (*placed, *rest))


def _is_image(part: str | None) -> bool:
    return part is None


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

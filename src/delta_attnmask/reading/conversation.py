"""What all formats share: texts and images become turns, and a conversation's order is checked. No torch here.

Rows of every format may also carry an id, a source, and images beside their turns.
"""

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.images import parse_data_uri
from delta_attnmask.records import ImageRef, Role, Turn

_SOURCE_KEYS = ("source", "data_source", "task_name", "dataset")
_MAX_LABEL_CHARS = 500
_BY_HASH = re.compile(r"(?:^|/)([0-9a-f]{2})/\1[0-9a-f]{62}\.\w+$")  # ab/abcdef….png, as unpacked images are named
TAG = "<image>"
ROLES: dict[str, Role] = {
    "human": "user",
    "gpt": "assistant",
    "user": "user",
    "assistant": "assistant",
    "system": "system",
}
_MAX_IMAGES = 1000
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Conversation(NamedTuple):
    """What a format reads out of a row: turns, whose k-th None is the k-th image reference."""

    turns: tuple[Turn, ...]
    images: tuple[ImageRef, ...]


@dataclass(frozen=True)
class Format:
    """How a row writes its conversation.

    spec: the name, with the option after a colon if there is one; what a run's manifest keeps.
    parse: the row's turns and images; RowError with the reason if it is faulty.
    keys: what a row has that looks like it, whatever its faults; of several in one string, any.
    """

    spec: str
    parse: Callable[[Mapping[str, Any]], Conversation] = field(compare=False)
    keys: tuple[str, ...] = ()

    def recognises(self, fields: Mapping[str, Any]) -> bool:
        return all(fields.keys() & set(names.split()) for names in self.keys)


class MessageKeys(NamedTuple):
    """How one message is written: which key holds its speaker, which its text, and who is who."""

    role: str
    content: str
    roles: Mapping[str, Role] = ROLES


def check_messages(messages: object, name: str) -> list[object]:
    """The messages as a list that isn't empty; RowError otherwise."""
    if not isinstance(messages, list):
        raise RowError(ReasonCode.WRONG_TYPE, f"`{name}` must be a list, got {kind(messages)}")
    if not messages:
        raise RowError(ReasonCode.NO_TURNS, "empty conversation")
    return messages


def read_message(message: object, n: int, keys: MessageKeys) -> tuple[Role, object]:
    """Who speaks in the n-th message, and its content, whatever that is."""
    if not isinstance(message, dict):
        raise RowError(ReasonCode.WRONG_TYPE, f"turn {n} must be an object, got {kind(message)}")
    speaker = message.get(keys.role)
    if not isinstance(speaker, str) or speaker not in keys.roles:
        shown = repr(speaker[:40]) if isinstance(speaker, str) else kind(speaker)
        raise RowError(
            ReasonCode.UNKNOWN_ROLE, f"turn {n}: `{keys.role}` must be one of {', '.join(keys.roles)}, got {shown}"
        )
    return keys.roles[speaker], message.get(keys.content)


def check_text(text: object, name: str, where: str) -> str:
    """The text, if it is a string of whole characters."""
    if not isinstance(text, str):
        raise RowError(ReasonCode.WRONG_TYPE, f"{name} must be a string, got {kind(text)}")
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise RowError(ReasonCode.NOT_UNICODE, f"{where}: a lone surrogate, which isn't a character")
    return text


def split_at_tags(text: str) -> tuple[str | None, ...]:
    """Put None for every `<image>`; the white space that sets images at the start or the end apart from the text goes.

    LLaVA writes the tag on a line of its own, before or after the question, and chat templates bring their own
    separator. Between two pieces of text the white space belongs to the text and stays.
    """
    first, *rest = text.split(TAG)
    parts: list[str | None] = [first]
    for piece in rest:
        parts += [None, piece]
    return set_apart(parts)


def set_apart(parts: Sequence[str | None]) -> tuple[str | None, ...]:
    """Parts without empty texts, and without the white space between images at either end and the text."""
    if None not in parts:
        return tuple(part for part in parts if part)
    filled = [idx for idx, part in enumerate(parts) if part and part.strip()]
    settled: list[str | None] = []
    for idx, part in enumerate(parts):
        if part is None:
            settled.append(part)
        elif filled and filled[0] <= idx <= filled[-1]:
            text = part.lstrip() if idx == filled[0] and None in parts[:idx] else part
            text = text.rstrip() if idx == filled[-1] and None in parts[idx:] else text
            settled += [text] if text else []
    return tuple(settled)


def put_in_front(turns: tuple[Turn, ...], n_images: int) -> tuple[Turn, ...]:
    """Put the images before the first question if the texts place none, as TRL and ms-swift do."""
    if not n_images or any(None in turn.parts for turn in turns):
        return turns
    first = next((idx for idx, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return turns
    placed = Turn("user", set_apart([*(None,) * n_images, *turns[first].parts]))
    return (*turns[:first], placed, *turns[first + 1 :])


def check_conversation(found: Conversation) -> None:
    """RowError unless turns and images are in the order in which they can be trained on.

    One system turn at most, first; then question and answer by turns, an answer last, and no answer empty; images in
    questions alone, as many as there are places for them.
    """
    if len(found.images) > _MAX_IMAGES:
        raise RowError(ReasonCode.IMAGE_COUNT, f"{len(found.images)} images, more than {_MAX_IMAGES}")
    roles = [turn.role for turn in found.turns]
    if "assistant" not in roles:
        raise RowError(ReasonCode.NO_ANSWER, "no assistant turn")
    n_system = int(roles[0] == "system")
    for n, turn in enumerate(found.turns, start=1):
        expected = "system" if n <= n_system else ("user", "assistant")[(n - n_system - 1) % 2]
        if turn.role != expected:
            raise RowError(ReasonCode.TURN_ORDER, f"turn {n} is {turn.role}'s, expected {expected}'s")
    if roles[-1] == "user":
        raise RowError(ReasonCode.NO_ANSWER, "the last turn is the user's, expected an answer")
    for n, turn in enumerate(found.turns, start=1):
        if turn.role == "assistant" and not turn.text.strip() and None not in turn.parts:
            raise RowError(ReasonCode.NO_ANSWER, f"turn {n}: the answer is empty")
        if turn.role != "user" and None in turn.parts:
            raise RowError(ReasonCode.IMAGE_COUNT, f"turn {n}: {TAG} in {turn.role}'s text")
    n_images, n_places = len(found.images), sum(turn.parts.count(None) for turn in found.turns)
    if n_places != n_images:
        raise RowError(ReasonCode.IMAGE_COUNT, f"{n_places} {TAG} for {n_images} image{'' if n_images == 1 else 's'}")


def kind(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    return _KINDS.get(type(value), "nothing")


_KINDS: dict[type[Any], str] = {
    dict: "an object",
    list: "a list",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    ImageRef: "an image",
}


def check_object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RowError(ReasonCode.WRONG_TYPE, f"expected an object, got {kind(value)}")
    return value


def require(fields: Mapping[str, Any], *names: str) -> None:
    """RowError unless the row has these fields."""
    for name in names:
        if name not in fields:
            raise RowError(ReasonCode.NO_FIELD, f"no `{name}`")


def find_label(fields: Mapping[str, Any]) -> str:
    """The row's id, or an empty text."""
    value = fields.get("id", fields.get("image_id"))
    return _clean_label(str(value)) if isinstance(value, str | int | float) else ""


def find_source(fields: Mapping[str, Any], images: tuple[ImageRef, ...] = ()) -> str:
    """The data set that the row names, else the first folder of its image's path.

    An absolute path says where a machine keeps things, one that leaves the image folder leads anywhere, and a name that
    is a hash says nothing: none of them gives a source.
    """
    for key in _SOURCE_KEYS:
        if isinstance(value := fields.get(key), str) and value:
            return _clean_label(value)
    value = images[0].path if images else fields.get("image") or fields.get("images")
    path = value[0] if isinstance(value, list) and value else value
    if not isinstance(path, str) or path.startswith("/") or ":" in path[:16] or _BY_HASH.search(path):  # as URLs have
        return ""
    folders = [part for part in posixpath.normpath(path).split("/")[:-1] if part]
    return _clean_label(folders[0]) if folders and folders[0] != ".." else ""


def as_label(value: object) -> str:
    """Any value as a short text; empty where there is none."""
    if value is None or isinstance(value, str):
        return _clean_label(value or "")
    return _clean_label(json.dumps(value, ensure_ascii=False, default=str))


def _clean_label(text: str) -> str:
    """Short, and free of lone surrogates, which no file can store."""
    return text[:_MAX_LABEL_CHARS].encode(errors="replace").decode()


def refuse_video(fields: Mapping[str, Any]) -> None:
    for key in ("video", "videos", "audio", "audios"):
        if fields.get(key):
            raise RowError(ReasonCode.MEDIA_UNSUPPORTED, f"{key.removesuffix('s')} isn't supported")


def find_images(fields: Mapping[str, Any]) -> tuple[ImageRef, ...]:
    """The row's images, in order; RowError for videos and for what names no image."""
    refuse_video(fields)
    one, several = fields.get("image"), fields.get("images")
    if one and several and one != several:
        raise RowError(ReasonCode.BAD_IMAGE_REFERENCE, "`image` and `images` differ")
    value, name = (one, "image") if one else (several or [], "images")
    return tuple(read_image(image, name) for image in (value if isinstance(value, list) else [value]))


def read_image(image: object, name: str) -> ImageRef:
    """One image: itself, a path or a `data:` URI, also as `{"path": …}`, `{"url": …}` or `{"bytes": base64}`.

    If there are several, the bytes count.
    """
    given = image
    if isinstance(image, dict):
        data = image.get("bytes")
        is_base64 = isinstance(data, str) and data
        given = f"data:image;base64,{data}" if is_base64 else data or image.get("path") or image.get("url")
    if isinstance(given, ImageRef):
        return given
    if not isinstance(given, str) or not given:
        raise RowError(ReasonCode.BAD_IMAGE_REFERENCE, f"`{name}` must be a path or a list of paths, got {kind(image)}")
    path = check_text(given, f"`{name}`", f"`{name}`")
    return ImageRef(data=parse_data_uri(path)) if path.startswith("data:") else ImageRef(path)

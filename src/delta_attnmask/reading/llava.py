r"""LLaVA's format: `conversations` of `from` and `value`, where the k-th `<image>` stands for the k-th image.

    {"id": "9", "image": "a/x.jpg", "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A bear."}]}

Also read: `image` or `images` as a string or a list (Qwen-VL), text-only rows, `task_name` (Vision-Flan). A row with
an image but no `<image>` is refused: LLaVA's loader drops the image without a word, Qwen-VL's and LLaMA-Factory's stop.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from delta_attnmask.errors import RowError
from delta_attnmask.reading.rows import RawRow
from delta_attnmask.records import Record, Role, Turn

_TAG = "<image>"
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_SOURCE_KEYS = ("source", "data_source", "task_name", "dataset")
_MAX_LABEL_CHARS = 500


def recognises_llava(value: object) -> bool:
    """Whether a row looks like this format; says nothing about its faults."""
    return isinstance(value, dict) and "conversations" in value


def read_llava(row: RawRow) -> Record:
    """Turn a raw row into a record; what is wrong with it becomes its `reason`."""
    label, source, reason = "", "", row.reason
    if not reason:
        try:
            fields = _check_fields(row.value)
            label, source = _find_label(fields), _find_source(fields)
            images = _find_images(fields)
            turns = _read_turns(fields["conversations"])
            _check_order(turns)
            _check_tags(turns, len(images))
            return Record(row.row, row.key, label, source, turns, images, raw=row.raw)
        except RowError as error:
            reason = str(error)
    return Record(row.row, row.key, label, source, reason=reason, raw=row.raw)


def _check_fields(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RowError(f"expected an object, got {_kind(value)}")
    if "conversations" not in value:
        raise RowError("no `conversations`")
    return value


def _find_label(fields: Mapping[str, Any]) -> str:
    value = fields.get("id")
    return _clean_label(str(value)) if isinstance(value, str | int | float) else ""


def _find_source(fields: Mapping[str, Any]) -> str:
    """The data set that the row names, else the first folder of its image's path."""
    for key in _SOURCE_KEYS:
        if isinstance(value := fields.get(key), str) and value:
            return _clean_label(value)
    value = fields.get("image") or fields.get("images")
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, str) or first.startswith("data:") or "://" in first:
        return ""
    folders = [part for part in first.split("/")[:-1] if part not in {"", ".", ".."}]
    return _clean_label(folders[0]) if folders else ""


def _clean_label(text: str) -> str:
    """Short, and free of lone surrogates, which no file can store."""
    return text[:_MAX_LABEL_CHARS].encode(errors="replace").decode()


def _find_images(fields: Mapping[str, Any]) -> tuple[str, ...]:
    if fields.get("video") or fields.get("videos"):
        raise RowError("video isn't supported")
    given = [key for key in ("image", "images") if fields.get(key)]
    if len(given) == 2 and fields["image"] != fields["images"]:
        raise RowError("both `image` and `images` are given, and differ")
    if not given:
        return ()
    value = fields[given[0]]
    images = value if isinstance(value, list) else [value]
    for image in images:
        if not isinstance(image, str) or not image:
            raise RowError(f"`{given[0]}` must be a path or a list of paths, got {_kind(image)}")
        _check_unicode(image, f"`{given[0]}`")
    return tuple(images)


def _read_turns(conversation: object) -> tuple[Turn, ...]:
    if not isinstance(conversation, list):
        raise RowError(f"`conversations` must be a list, got {_kind(conversation)}")
    if not conversation:
        raise RowError("empty conversation")
    return tuple(_read_turn(message, n) for n, message in enumerate(conversation, start=1))


def _read_turn(message: object, n: int) -> Turn:
    if not isinstance(message, dict):
        raise RowError(f"turn {n} must be an object, got {_kind(message)}")
    speaker, text = message.get("from"), message.get("value")
    if not isinstance(speaker, str) or speaker not in _ROLES:
        shown = repr(speaker[:40]) if isinstance(speaker, str) else _kind(speaker)
        raise RowError(f"turn {n}: `from` must be one of {', '.join(_ROLES)}, got {shown}")
    if not isinstance(text, str):
        raise RowError(f"turn {n}: `value` must be a string, got {_kind(text)}")
    _check_unicode(text, f"turn {n}")
    return Turn(_ROLES[speaker], split_at_tags(text))


def split_at_tags(text: str) -> tuple[str | None, ...]:
    """Put None for every `<image>`; the white space that sets images at the start or the end apart from the text goes.

    LLaVA writes the tag on a line of its own, before or after the question, and chat templates bring their own
    separator. Between two pieces of text the white space belongs to the text and stays.
    """
    first, *rest = text.split(_TAG)
    if not rest:
        return (text,) if text else ()
    pieces = [first, *rest]
    filled = [idx for idx, piece in enumerate(pieces) if piece.strip()]
    if not filled:
        return (None,) * len(rest)
    if filled[0] > 0:
        pieces[filled[0]] = pieces[filled[0]].lstrip()
    if filled[-1] < len(rest):
        pieces[filled[-1]] = pieces[filled[-1]].rstrip()
    parts: list[str | None] = []
    for idx, piece in enumerate(pieces):
        if piece and filled[0] <= idx <= filled[-1]:
            parts.append(piece)
        if idx < len(rest):
            parts.append(None)
    return tuple(parts)


def _check_order(turns: Sequence[Turn]) -> None:
    """One system turn at most, first; then question and answer by turns, an answer last, and no answer empty."""
    roles = [turn.role for turn in turns]
    if "assistant" not in roles:
        raise RowError("no assistant turn")
    n_system = int(roles[0] == "system")
    for n, role in enumerate(roles[n_system:]):
        expected = ("user", "assistant")[n % 2]
        if role != expected:
            raise RowError(f"turn {n + n_system + 1} is {role}'s, expected {expected}'s")
    if roles[-1] == "user":
        raise RowError("the last turn is the user's, expected an answer")
    for n, turn in enumerate(turns, start=1):
        if turn.role == "assistant" and not turn.text.strip() and None not in turn.parts:
            raise RowError(f"turn {n}: the answer is empty")


def _check_tags(turns: Sequence[Turn], n_images: int) -> None:
    for n, turn in enumerate(turns, start=1):
        if turn.role != "user" and None in turn.parts:
            raise RowError(f"turn {n}: {_TAG} in {turn.role}'s text")
    n_tags = sum(turn.parts.count(None) for turn in turns)
    if n_tags != n_images:
        raise RowError(f"{n_tags} {_TAG} for {n_images} image{'' if n_images == 1 else 's'}")


def _check_unicode(text: str, where: str) -> None:
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise RowError(f"{where}: a lone surrogate, which is no character")


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _kind(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    if isinstance(value, str):
        return "a string" if value else "an empty string"
    return _KINDS.get(type(value), "nothing")


_KINDS = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number"}

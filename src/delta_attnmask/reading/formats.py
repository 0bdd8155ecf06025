"""The formats of rows, by name. A new one is a function and a line; to write it, another function and a line.

What holds the rows (a JSON list, parquet, a tar) is independent of it: see `containers`.

Nothing is trusted to be lossless: a written row is read back as the target's readers would, and one that comes back
different is refused with a reason. So a text that holds a tag, such as a literal `<image>`, never becomes an image.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from delta_attnmask.errors import DataError, ReasonCode, RowError, SettingsError
from delta_attnmask.reading.containers import RawRow
from delta_attnmask.reading.conversation import (
    TAG,
    Format,
    as_label,
    check_conversation,
    check_object,
    find_label,
    find_source,
    set_apart,
)
from delta_attnmask.reading.exchanges import INSTRUCTION, caption_format, parse_cauldron, parse_exchange
from delta_attnmask.reading.llama_factory import find_entries, llama_factory_format
from delta_attnmask.reading.messages import (
    Written,
    parse_completion,
    parse_llava,
    parse_messages,
    write_completion,
    write_llava,
    write_messages,
    write_tagged,
)
from delta_attnmask.records import ImageRef, Record

TargetName = Literal["llava", "messages", "llama-factory", "ms-swift", "trl", "parquet", "webdataset"]
FileKind = Literal["list", "lines", "parquet", "tar"]


FORMATS: dict[str, Format] = {
    "llava": Format("llava", parse_llava, ("conversations",)),
    "messages": Format("messages", parse_messages, ("messages",)),
    "prompt-completion": Format("prompt-completion", parse_completion, ("prompt", "completion")),
    "query-response": Format(
        "query-response", partial(parse_exchange, prompt="query", response="response"), ("query", "response")
    ),
    "alpaca": Format(
        "alpaca",
        partial(parse_exchange, prompt="instruction", response="output", query="input"),
        ("instruction", "output"),
    ),
    "cauldron": Format("cauldron", parse_cauldron, ("texts", "image images")),
    "minigpt4": caption_format(),
}
ALIASES = {"qwen-vl": "llava", "sharegpt": "llava", "openai": "messages"}
NAMES = (*FORMATS, "llama-factory", "ms-swift", "trl", *ALIASES)
_FAMILIES = {"ms-swift": ("messages", "query-response", "llava", "alpaca"), "trl": ("messages", "prompt-completion")}


def format_name(format: Format) -> str:
    """The name alone: an option may be as long as a mapping of columns."""
    return format.spec.partition(":")[0]


def read_record(format: Format, row: RawRow, columns: Sequence[str] = ()) -> Record:
    """Turn a raw row into a record; what is wrong with it becomes its `reason`. columns: to keep in `own`."""
    label, source, error, own = "", "", row.error, ("",) * len(columns)
    if not error:
        try:
            fields = check_object(row.value)
            own = tuple(as_label(fields.get(name)) for name in columns)
            label, source = find_label(fields), find_source(fields)
            found = format.parse(fields)
            check_conversation(found)
            source = source or find_source(fields, found.images)
            return Record(row.row, row.key, label, source, found.turns, found.images, own=own, raw=row.raw)
        except RowError as caught:
            error = caught
    about: dict[str, Any] = {"reason_code": error.code, "reason": error.detail, "own": own, "raw": row.raw}
    return Record(row.row, row.key, label, source, **about)


def choose_format(spec: str | None, rows: Sequence[RawRow], path: Path | None) -> Format:
    """The format that is asked for, that `dataset_info.json` names, or that the rows look like.

    spec: `NAME` or `NAME:OPTION`; None to recognise it. path: of the file, if there is one. Raises SettingsError for a
    name that isn't known, DataError where nothing or more than one thing is recognised.
    """
    name, _, option = (spec or "").partition(":")
    name = ALIASES.get(name, name)
    if name == "minigpt4":
        return caption_format(option or INSTRUCTION)
    if name == "llama-factory" and option.startswith("{"):
        try:
            return llama_factory_format(json.loads(option))
        except ValueError as error:
            raise SettingsError(f"format={spec!r:.80}: expected an entry of dataset_info.json, {error}") from error
    if name in {"", "llama-factory"} and path is not None:
        entry = _choose_entry(find_entries(path), option, path)
        if entry is not None:
            return llama_factory_format(entry)
    if name and option:
        raise SettingsError(f"format={spec!r}: {name} takes no option")
    if name in FORMATS:
        return FORMATS[name]
    if name and name not in NAMES:
        raise SettingsError(f"format={name!r}: expected one of {', '.join(NAMES)}")
    return detect_format(rows, path or "the data", _FAMILIES.get(name, FORMATS))


def _choose_entry(entries: Mapping[str, Mapping[str, Any]], name: str, path: Any) -> Mapping[str, Any] | None:
    if name and name not in entries:
        raise SettingsError(f"dataset_info.json beside {path} has no entry {name!r} with this file's name")
    if len(entries) > 1 and not name:
        raise DataError(
            f"dataset_info.json has the entries {', '.join(entries)} for {path}; name one: --format llama-factory:NAME"
        )
    return entries[name] if name else next(iter(entries.values()), None)


def detect_format(rows: Sequence[RawRow], path: object, names: Iterable[str] = FORMATS) -> Format:
    """The format that these rows look like; DataError, with the keys that were seen, if none does or several do."""
    objects = [row.value for row in rows if isinstance(row.value, dict)]
    votes = {name: sum(FORMATS[name].recognises(value) for value in objects) for name in names}
    first, second = sorted([*votes, ""], key=lambda name: -votes.get(name, 0))[:2]
    if first and votes[first] and votes.get(second, 0) * 2 < votes[first]:
        return FORMATS[first]
    if not votes.get(first):
        raise DataError(f"{path} is in no known format ({', '.join(NAMES)}): {_describe_keys(rows, objects)}")
    raise DataError(
        f"{path} could be {first} ({votes[first]} of the first {len(rows)} rows) or {second} ({votes[second]}); "
        f"say which with --format: {_describe_keys(rows, objects)}"
    )


def _describe_keys(rows: Sequence[RawRow], objects: Sequence[Mapping[str, Any]]) -> str:
    keys = sorted({key[:40] for value in objects for key in value})
    if not keys:
        return f"none of the first {len(rows)} rows is an object"
    return f"the first {len(rows)} rows have the keys {', '.join(keys[:20])}"


@dataclass(frozen=True)
class Target:
    """A format to write.

    write: a record and its image references to the row's fields. format: reads them back. file: what kind holds
    them. reserved: texts that the trainer takes for something else wherever they are.
    """

    name: str
    write: Callable[[Record, Written], dict[str, Any]]
    format: Format
    file: FileKind
    reserved: tuple[str, ...] = ()

    @property
    def holds_images(self) -> bool:
        """Whether images are inside the file, instead of being named by it."""
        return self.file in {"parquet", "tar"}

    def convert(self, record: Record, images: Written) -> dict[str, Any]:
        """The row's fields; RowError where the target can't say what the record says."""
        for n, turn in enumerate(record.turns, start=1):
            if found := next((text for text in self.reserved if text in turn.text), None):
                raise RowError(
                    ReasonCode.NOT_EXPRESSIBLE, f"turn {n}: the text {found!r} means something else to {self.name}"
                )
        fields = self.write(record, images)
        refs = tuple(ImageRef(image) if isinstance(image, str) else image for image in images)
        back = read_record(self.format, RawRow(record.row, 0, b"", fields))
        if back.reason or back.images != refs or _settle(back) != _settle(record):
            raise RowError(
                ReasonCode.NOT_EXPRESSIBLE,
                f"{self.name} can't express it: {back.reason or 'its reader would see another conversation'}",
            )
        return fields


def _settle(record: Record) -> list[tuple[str, tuple[str | None, ...]]]:
    """Turns as they count: neighbouring texts joined, and no white space between text and the images around it."""
    return [(turn.role, set_apart(_join_texts(turn.parts))) for turn in record.turns]


def _join_texts(parts: Sequence[str | None]) -> list[str | None]:
    joined: list[str | None] = []
    for is_text, group in groupby(parts, lambda part: part is not None):
        some = list(group)
        joined += ["".join(filter(None, some))] if is_text else some
    return joined


_MESSAGES = FORMATS["messages"]
_MEDIA = ("<video>", "<audio>")
_SWIFT = (*_MEDIA, "<bbox>", "<ref-object>", "<cot-process>", "<start-image>", "<img>")

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target("llava", write_llava, FORMATS["llava"], "list"),
        Target("messages", write_messages, _MESSAGES, "lines"),
        Target("llama-factory", write_tagged, _MESSAGES, "list", (TAG, *_MEDIA)),
        Target("ms-swift", write_tagged, _MESSAGES, "lines", (TAG, *_SWIFT)),
        Target("trl", write_messages, _MESSAGES, "parquet"),
        Target("parquet", write_messages, _MESSAGES, "parquet"),
        Target("webdataset", write_messages, _MESSAGES, "tar"),
    )
}
TRL_SINGLE = Target("trl", write_completion, FORMATS["prompt-completion"], "parquet")


def choose_target(name: str, is_single: bool) -> Target:
    """The target of that name. is_single: every row has one answer, so TRL can be given prompts and completions."""
    return TRL_SINGLE if name == "trl" and is_single else TARGETS[name]

r"""LLaMA-Factory's files as its `dataset_info.json` describes them: columns, and the tags of messages.

{"mine": {"file_name": "d.json", "formatting": "sharegpt",
          "columns": {"messages": "messages", "images": "images"},
          "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}}}
"""

import json
from collections import ChainMap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.reading.conversation import (
    Conversation,
    Format,
    MessageKeys,
    check_messages,
    find_images,
    require,
    split_at_tags,
)
from delta_attnmask.reading.exchanges import parse_exchange, read_optional
from delta_attnmask.reading.messages import LLAVA_NAMES, read_typed
from delta_attnmask.records import Role, Turn
from delta_attnmask.storage import write_text_atomically

INFO_FILE = "dataset_info.json"
_MAX_INFO_BYTES = 16 << 20
# What holds where an entry says nothing. Like LLaMA-Factory, an entry that gives `columns` or `tags` gives all of them.
_COLUMNS = {"messages": "conversations", "prompt": "instruction", "query": "input", "response": "output"}
_TAGS = {"role_tag": "from", "content_tag": "value"} | {f"{role}_tag": name for role, name in LLAVA_NAMES.items()}
OPENAI_ENTRY: Mapping[str, Any] = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {"role_tag": "role", "content_tag": "content"} | {f"{role}_tag": role for role in get_args(Role)},
}


def llama_factory_format(entry: Mapping[str, Any]) -> Format:
    """The format of an entry of `dataset_info.json`, whose JSON with sorted keys is the format's option.

    Raises SettingsError for what the entry of a data file can't say.
    """
    kept = {name: entry[name] for name in ("formatting", "columns", "tags") if entry.get(name)}
    if kept.get("formatting", "alpaca") not in ("alpaca", "sharegpt", "openai"):
        raise SettingsError(f"formatting={kept['formatting']!r} in {INFO_FILE}: expected alpaca or sharegpt")
    for group in ("columns", "tags"):
        found = kept.get(group, {})
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
            raise SettingsError(f"`{group}` in {INFO_FILE} must be an object of names")
    if entry.get("ranking"):
        raise SettingsError(f"{INFO_FILE} says `ranking`: preference data has two answers, expected one")
    spec = f"llama-factory:{json.dumps(kept, sort_keys=True, ensure_ascii=False)}"
    return Format(spec, partial(_parse, **{"formatting": "alpaca", "columns": _COLUMNS, "tags": _TAGS} | kept))


def _parse(
    fields: Mapping[str, Any], *, formatting: str, columns: Mapping[str, str], tags: Mapping[str, str]
) -> Conversation:
    media = {name: fields.get(columns[name]) for name in ("images", "videos", "audios") if name in columns}
    if formatting == "alpaca":
        names = {name: columns.get(name, "") for name in ("prompt", "query", "response", "history", "system")}
        own = {"image": None, "images": None} | media
        return parse_exchange(ChainMap(own, cast("dict[str, Any]", fields)), **names, must_place=True)
    name = columns.get("messages", "")
    require(fields, name)
    roles = {tags[f"{role}_tag"]: role for role in get_args(Role) if f"{role}_tag" in tags}
    keys = MessageKeys(tags.get("role_tag", ""), tags.get("content_tag", ""), roles)
    turns = read_typed(check_messages(fields[name], name), (), keys).turns
    if turns[0].role != "system" and (system := read_optional(fields, columns.get("system", ""))):
        turns = (Turn("system", split_at_tags(system)), *turns)
    return Conversation(turns, find_images(media))


def find_entries(path: Path) -> dict[str, Mapping[str, Any]]:
    """The entries for a data file in the `dataset_info.json` beside it, by name; none where there is no such file."""
    info_path = path.parent / INFO_FILE
    if not info_path.is_file() or info_path == path:
        return {}
    try:
        if info_path.stat().st_size > _MAX_INFO_BYTES:
            raise DataError(f"{info_path} is longer than {_MAX_INFO_BYTES} bytes")
        info = json.loads(info_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{info_path} can't be read: {error}") from error
    entries = info.items() if isinstance(info, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict) and entry.get("file_name") == path.name}


def add_entry(out: Path, entry: Mapping[str, Any]) -> str:
    """Put an entry for the file into the `dataset_info.json` beside it, among those that are there; return its name.

    Raises SettingsError where that can't be read, or has an entry of that name for another file.
    """
    path = out.parent / INFO_FILE
    entries: Any = {}
    if path.exists():
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{path} can't be read: {error}; fix it, or write to another folder") from error
    if not isinstance(entries, dict) or entries.get(out.stem, {}).get("file_name", out.name) != out.name:
        raise SettingsError(f"{path} has another entry {out.stem!r}; write to another name or folder")
    entries[out.stem] = {"file_name": out.name, **entry}
    write_text_atomically(path, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    return out.stem

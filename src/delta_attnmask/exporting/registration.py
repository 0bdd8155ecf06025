"""How each trainer is told of a data set: an entry in `dataset_info.json`, and a command to copy. No torch here."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delta_attnmask.errors import SettingsError
from delta_attnmask.reading.llama_factory import INFO_FILE
from delta_attnmask.storage import write_text_atomically

_ENTRY: Mapping[str, Any] = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}


def register(target: str, out: Path, images: Path, columns: tuple[str, ...]) -> str:
    """Register the file `out` where the trainer has a place for that, and return a line to copy."""
    file, folder, root = (shlex.quote(str(path)) for path in (out.absolute(), out.absolute().parent, images))
    if target == "llama-factory":
        name = add_entry(out, _ENTRY)
        return (
            f"llamafactory-cli train --stage sft --do_train --model_name_or_path MODEL --template TEMPLATE "
            f"--dataset {shlex.quote(name)} --dataset_dir {folder} --media_dir {root} --output_dir OUT"
        )
    if target == "trl":
        loss = "" if "completion" in columns else ", assistant_only_loss=True"
        return (
            f'load_dataset("parquet", data_files={str(out.absolute())!r}, split="train")  '
            f"# with SFTConfig(max_length=None{loss})"
        )
    lines = {
        "llava": f"--data_path {file} --image_folder {root}",
        "messages": f"images are below {root}",
        "ms-swift": f"ROOT_IMAGE_DIR={root} swift sft --model MODEL --dataset {file}",
        "parquet": f'load_dataset("parquet", data_files={str(out.absolute())!r}, split="train")',
        "webdataset": f"webdataset.WebDataset({str(out.absolute())!r}).decode('pil')",
    }
    return lines[target]


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
            raise SettingsError(f"{path} can't be read: {error}; mend it, or write to another folder") from error
    if not isinstance(entries, dict) or entries.get(out.stem, {}).get("file_name", out.name) != out.name:
        raise SettingsError(f"{path} has another entry {out.stem!r}; write to another name or folder")
    entries[out.stem] = {"file_name": out.name, **entry}
    write_text_atomically(path, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    return out.stem

"""The kept rows in the input's own formats and files. No torch here."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.registration import add_entry
from delta_attnmask.exporting.spans import copy_json, copy_tar
from delta_attnmask.reading.containers import Container
from delta_attnmask.reading.jsonfile import JsonFile
from delta_attnmask.reading.llama_factory import LlamaFactory
from delta_attnmask.reading.rows import FilePart, FileRows
from delta_attnmask.reading.tars import TarFile
from delta_attnmask.storage import write_text_atomically

MIXTURE = "mixture.json"


def is_one_file(dataset: FileRows) -> bool:
    """Whether the data is a single file, and is written as one; else a folder is written."""
    return len(dataset.parts) == 1 and dataset.path == dataset.parts[0].path


def export_native(dataset: FileRows, rows: NDArray[np.int64], out: Path) -> None:
    """Write rows, in the order given within each file, unchanged.

    A file becomes a file. A folder, several files or a mixture become a folder with files of the same names, and with
    what `datasets` needs to load it from disk, or a mixture file of what was kept. A file that an entry of
    `dataset_info.json` describes gets one beside it under its new name.
    """
    if is_one_file(dataset):
        _copy_part(dataset.parts[0], rows, out)
        return
    if out.exists() and any(out.iterdir()):
        raise SettingsError(f"out={out}: is a folder that isn't empty; choose another")
    home = Path(os.path.commonpath([part.path.parent for part in dataset.parts]))
    written = []
    for number, part in enumerate(dataset.parts):
        first, behind = dataset.starts[number : number + 2]
        mine = rows[(rows >= first) & (rows < behind)] - first
        if len(mine) or not isinstance(part.container, JsonFile | TarFile):  # an empty JSON list is no data set
            _copy_part(part, mine, out / part.path.relative_to(home))
            written.append((part, part.path.relative_to(home)))
    if (home / "state.json").is_file() and dataset.path == home:
        _write_state(home, out)
    if any(part.name or part.weight != 1 or part.images_root != dataset.images_root for part, _ in written):
        entries = [_describe(part, path) for part, path in written]
        write_text_atomically(out / MIXTURE, json.dumps({"sources": entries}, indent=1, ensure_ascii=False) + "\n")


def _copy_part(part: FilePart, rows: NDArray[np.int64], out: Path) -> None:
    copy_rows(part.container, rows, out)
    if isinstance(part.format, LlamaFactory):
        add_entry(out, json.loads(part.format.entry))


def copy_rows(container: Container, rows: NDArray[np.int64], out: Path) -> None:
    """Write rows of one file, in the order given, into another of the same kind."""
    if isinstance(container, JsonFile):
        copy_json(container, rows, out)
    elif isinstance(container, TarFile):
        copy_tar(container, rows, out)
    else:
        from delta_attnmask.exporting.tables import copy_columns
        from delta_attnmask.reading.columns import Columns

        if not isinstance(container, Columns):
            raise TypeError(f"no way to write rows of {container.kind}")
        copy_columns(container, rows, out)


def _describe(part: FilePart, path: Path) -> dict[str, Any]:
    """A part as an entry of a mixture file."""
    entry: dict[str, Any] = {"data": str(path), "format": part.format.spec, "weight": part.weight}
    named = {"name": part.name} if part.name else {}
    return named | entry | ({"images": str(part.images_root)} if part.images_root else {})


def _write_state(home: Path, out: Path) -> None:
    """What `datasets.load_from_disk` reads first. It caches by the fingerprint, so that must be a new one."""
    state = json.loads((home / "state.json").read_text(encoding="utf-8"))
    write_text_atomically(
        out / "state.json", json.dumps(state | {"_fingerprint": secrets.token_hex(8)}, indent=2) + "\n"
    )
    info = home / "dataset_info.json"
    if info.is_file():
        write_text_atomically(out / info.name, info.read_text(encoding="utf-8"))

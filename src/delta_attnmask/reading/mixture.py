"""Mixture files: several data sets with a name, an image folder and a weight each. JSON, or YAML.

    {"sources": [{"name": "coco", "data": "coco.json", "images": "coco/", "format": "llava", "weight": 2}]}
    {"coco": {"root": "coco/", "annotation": "coco.jsonl", "repeat_time": 2}}                    InternVL's meta file
    datasets: [{json_path: coco.json, sampling_strategy: all}]                                   LLaVA-NeXT's YAML

Paths are looked up from the mixture's folder, then from the working folder. A mixture is trusted as a command line is:
it may name any file.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delta_attnmask.errors import DataError
from delta_attnmask.reading.inputs import Source, find_files

_MAX_BYTES = 1 << 20
_OWN_KEYS = {"name", "data", "images", "format", "weight"}


def read_mixture(path: Path) -> list[Source]:
    """The sources of a mixture file; none if the file is no mixture. DataError names what is wrong with one that is."""
    values = _read(path)
    if values is None:
        return []
    sources = [source for n, entry in enumerate(_entries(values, path), 1) for source in _read_entry(entry, n, path)]
    if not sources:
        raise DataError(f"mixture {path} has no sources")
    return sources


def _read(path: Path) -> Any:
    """The file's value if it is small and one JSON object with the keys of a mixture, or any YAML; else None."""
    is_yaml = path.suffix.lower() in {".yaml", ".yml"}
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return None
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    if is_yaml:
        return _read_yaml(raw, path)
    if not raw.lstrip().startswith(b"{"):
        return None
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and _is_mixture(values) else None


def _read_yaml(raw: bytes, path: Path) -> Any:
    import yaml

    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(raw)):  # a few of them hold billions of texts
            raise DataError(f"mixture {path} has aliases (*name); write out what they stand for")
        values = yaml.safe_load(raw)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"mixture {path} is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict) or not _is_mixture(values):
        raise DataError(f"{path} is no mixture: expected `sources`, `datasets`, or entries with `annotation`")
    return values


def _is_mixture(values: Mapping[str, Any]) -> bool:
    if isinstance(values.get("sources"), list) or isinstance(values.get("datasets"), list):
        return True
    return bool(values) and all(isinstance(entry, dict) and "annotation" in entry for entry in values.values())


def _entries(values: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """The entries of the three dialects, in our own words."""
    if isinstance(own := values.get("sources"), list):
        for entry in own:
            if not isinstance(entry, dict) or not entry.keys() <= _OWN_KEYS:
                raise DataError(f"mixture {path}: expected sources with the keys {', '.join(sorted(_OWN_KEYS))}")
        return own
    if isinstance(listed := values.get("datasets"), list):
        return [_from_llava_next(entry, path) for entry in listed]
    return [
        {"name": name, "data": entry["annotation"], "images": entry.get("root"), "weight": entry.get("repeat_time", 1)}
        for name, entry in values.items()
    ]


def _from_llava_next(entry: object, path: Path) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise DataError(f"mixture {path}: expected objects in `datasets`")
    strategy = entry.get("sampling_strategy", "all")
    if not isinstance(strategy, str):
        raise DataError(f"mixture {path}: sampling_strategy must be a text")
    share = re.fullmatch(r"(?:first|end|random):(\d+(?:\.\d+)?)%", strategy)
    if strategy != "all" and not share:
        raise DataError(
            f"mixture {path}: sampling_strategy {strategy!r}: expected all, or a share such as random:10%; every row "
            "is scored, and `select` chooses"
        )
    weight = float(share[1]) / 100 if share else 1.0
    return {"data": entry.get("json_path"), "images": entry.get("image_folder"), "weight": weight}


def _read_entry(entry: Mapping[str, Any], n: int, path: Path) -> list[Source]:
    """An entry's files, one source each."""
    data, weight, images = entry.get("data"), entry.get("weight", 1), entry.get("images")
    texts = {name: entry.get(name) for name in ("name", "images", "format")}
    if not isinstance(data, str) or not data:
        raise DataError(f"mixture {path}: source {n} has no path of its data")
    if wrong := [name for name, text in texts.items() if not isinstance(text, str | None)]:
        raise DataError(f"mixture {path}: source {n}: `{wrong[0]}` must be a text")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e6:
        raise DataError(f"mixture {path}: source {n}: weight {weight!r}: expected a number above 0")
    found = _locate(data, path)
    files = find_files(found) if found.is_dir() else [found]
    folder = _locate(images, path) if images else None
    return [Source(file, folder, texts["format"], texts["name"] or "", float(weight)) for file in files]


def _locate(name: str, mixture: Path) -> Path:
    beside = mixture.parent / name
    try:
        return beside if beside.exists() or not Path(name).exists() else Path(name).absolute()
    except OSError as error:
        raise DataError(f"mixture {mixture}: {name!r:.80}: {error.strerror}") from error

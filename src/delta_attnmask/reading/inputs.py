"""What the user names as data becomes the files to read: a file, several, a pattern, a folder, or a mixture file.

Nothing is opened here but what lists files: `state.json` and `dataset_dict.json` of `datasets`, and mixtures, which are
JSON or YAML with a name, an image folder and a weight for each data set:

    {"sources": [{"name": "coco", "data": "coco.json", "images": "coco/", "format": "llava", "weight": 2}]}
    {"coco": {"root": "coco/", "annotation": "coco.jsonl", "repeat_time": 2}}                    InternVL's meta file
    datasets: [{json_path: coco.json, sampling_strategy: all}]                                   LLaVA-NeXT's YAML

Their paths are looked up from the mixture's folder, then from the working folder. A mixture is trusted as a command
line is: it may name any file.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path
from typing import Any

from delta_attnmask.errors import DataError
from delta_attnmask.locations import as_path, as_url, fetch_file

_FAMILIES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".tar": "tar",
    ".json": "JSON",
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
}
_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}  # say something of other files
_SPLIT = re.compile(r"(train|validation|val|dev|test)(?:[-._]|$)", re.IGNORECASE)
_MAX_LIST_BYTES = 64 << 20
_MAX_MIXTURE_BYTES = 1 << 20
_SOURCE_KEYS = {"name", "data", "images", "format", "weight"}


@dataclass(frozen=True)
class Source:
    """One file of a data set, and how a mixture wants it read.

    images: the folder of its images, if it has one of its own. format: as for `FileRows`; None to recognise it.
    name: becomes the source of all its rows; empty to leave that to the rows. weight: how often training repeats it;
    nothing is scored twice, so it is only handed on.
    """

    path: Path
    images: Path | None = None
    format: str | None = None
    name: str = ""
    weight: float = 1.0


def find_sources(given: str | Path | Sequence[str | Path]) -> tuple[str, list[Source]]:
    """The files that are meant, and one text that means the same again: a path, a pattern, or a JSON list of them."""
    if isinstance(given, str | Path) and str(given).startswith("["):
        given = _read_list(str(given))
    texts = [given] if isinstance(given, str | Path) else list(given)
    if not texts:
        raise DataError("no data file was given")
    locations = [as_url(text) or str(as_path(text).absolute()) for text in texts]
    try:
        sources = [source for location in locations for source in _expand(location)]
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path, a pattern that is none
        raise DataError(f"the data {', '.join(locations)!r:.200} can't be read: {error}") from error
    return locations[0] if len(locations) == 1 else json.dumps(locations, ensure_ascii=False), sources


def _read_list(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{text!r:.80} is neither a path nor a JSON list of paths: {error}") from error
    if not all(isinstance(path, str) for path in found):
        raise DataError(f"{text!r:.80} is no list of paths")
    return list(found)


def _expand(location: str) -> list[Source]:
    if (url := as_url(location)) is not None:
        return [Source(fetch_file(url))]
    path = Path(location)
    if has_magic(location) and not path.exists():
        # glob.glob would follow links within `**`: three of them to their own folder are 3 to the 40th paths
        root = Path(path.anchor)
        matches = sorted(root.glob(location.removeprefix(path.anchor)))
        found = [match for match in matches if not _is_about(match) and not _hidden(match) - {*path.parts}]
        if not found and ("*" in location or "?" in location):
            raise DataError(f"no file matches {location}")
        if found:
            return [source for match in found for source in _expand(str(match))]
    if path.is_dir():
        return [Source(file) for file in find_files(path)]
    return read_mixture(path) or [Source(path)]


def find_files(folder: Path) -> list[Path]:
    """The data files of a folder; DataError where it holds several splits, or files of several kinds."""
    if (folder / "dataset_dict.json").is_file():
        splits = _read_strings(folder / "dataset_dict.json", "splits")
        if len(splits) != 1:
            raise DataError(f"{folder} has the splits {', '.join(splits)}; name the folder of one of them")
        return find_files(_inside(folder, splits[0]))
    if (folder / "state.json").is_file():
        return [_inside(folder, name) for name in _read_strings(folder / "state.json", "_data_files", "filename")]
    found = sorted(path for path in folder.rglob("*") if _is_data(path.relative_to(folder)) and path.is_file())
    kinds = sorted({_FAMILIES[path.suffix.lower()] for path in found})
    if len(kinds) != 1:
        what = f"{' and '.join(kinds)} files" if kinds else f"no file with one of the endings {', '.join(_FAMILIES)}"
        raise DataError(f"{folder} has {what}; name the files, such as '{folder}/*.{(kinds or ['json'])[0].lower()}'")
    splits = sorted({split for path in found if (split := _find_split(path.relative_to(folder)))})
    if len(splits) > 1:
        raise DataError(f"{folder} has the splits {', '.join(splits)}; name one, such as '{folder}/**/{splits[-1]}*'")
    return found


def _hidden(path: Path) -> set[str]:
    return {part for part in path.parts if part.startswith(".")}


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return not hidden and not _is_about(path) and path.suffix.lower() in _FAMILIES


def _is_about(path: Path) -> bool:
    return path.name in _ABOUT or path.name.endswith(".selection.json")


def _find_split(path: Path) -> str:
    """The split that a file's or its folder's name begins with, as on the hub: data/train-00000-of-00002.parquet."""
    found = next((split[1].lower() for part in reversed(path.parts) if (split := _SPLIT.match(part))), "")
    return "validation" if found in {"val", "dev"} else found


def _inside(folder: Path, name: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{folder}: {name!r} leads out of the folder")
    return folder / name


def _read_strings(path: Path, key: str, inner: str = "") -> list[str]:
    """The strings of a list in a JSON file, or those under `inner` in its objects."""
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise DataError(f"{path} is longer than {_MAX_LIST_BYTES} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))[key]
        found = [value[inner] if inner else value for value in values]
    except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
        raise DataError(f"{path} can't be read, or lists no data files: {error}") from error
    if not found or not all(isinstance(name, str) for name in found):
        raise DataError(f"{path} lists no data files")
    return found


def read_mixture(path: Path) -> list[Source]:
    """The sources of a mixture file; none if the file is no mixture. DataError names what is wrong with one that is."""
    if not path.is_file() or path.stat().st_size > _MAX_MIXTURE_BYTES:
        return []
    raw, is_yaml = path.read_bytes(), path.suffix.lower() in {".yaml", ".yml"}
    if not is_yaml and not raw.lstrip().startswith(b"{"):
        return []
    values = _parse_yaml(raw, path) if is_yaml else _parse_json(raw)
    entries = _list_entries(values, path) if isinstance(values, dict) else None
    if entries is None and is_yaml:
        raise DataError(f"{path} is no mixture: expected `sources`, `datasets`, or entries with `annotation`")
    sources = [source for n, entry in enumerate(entries or (), 1) for source in _read_entry(entry, n, path)]
    if entries is not None and not sources:
        raise DataError(f"mixture {path} has no sources")
    return sources


def _parse_json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _parse_yaml(raw: bytes, path: Path) -> Any:
    import yaml

    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(raw)):  # a few of them hold billions of texts
            raise DataError(f"mixture {path} has aliases (*name); write out what they stand for")
        return yaml.safe_load(raw)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DataError(f"mixture {path} is no YAML: {str(error).splitlines()[0]}") from error


def _list_entries(values: Mapping[str, Any], path: Path) -> list[dict[str, Any]] | None:
    """The entries of the three dialects, in our own words; None where it is none of them."""
    if isinstance(own := values.get("sources"), list):
        if not all(isinstance(entry, dict) and entry.keys() <= _SOURCE_KEYS for entry in own):
            raise DataError(f"mixture {path}: expected sources with the keys {', '.join(sorted(_SOURCE_KEYS))}")
        return own
    if isinstance(listed := values.get("datasets"), list):
        return [_from_llava_next(entry, path) for entry in listed]
    if not values or not all(isinstance(entry, dict) and "annotation" in entry for entry in values.values()):
        return None
    return [
        {"name": name, "data": entry["annotation"], "images": entry.get("root"), "weight": entry.get("repeat_time", 1)}
        for name, entry in values.items()
    ]


def _from_llava_next(entry: object, path: Path) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise DataError(f"mixture {path}: expected objects in `datasets`")
    strategy = entry.get("sampling_strategy", "all")
    share = re.fullmatch(r"all|(?:first|end|random):(\d+(?:\.\d+)?)%", str(strategy))
    if not share:
        raise DataError(
            f"mixture {path}: sampling_strategy {strategy!r}: expected all, or a share such as random:10%; every row "
            "is scored, and `select` chooses"
        )
    weight = float(share[1] or 100) / 100
    return {"data": entry.get("json_path"), "images": entry.get("image_folder"), "weight": weight}


def _read_entry(entry: Mapping[str, Any], n: int, path: Path) -> list[Source]:
    """An entry's files, one source each."""
    data, weight, images = entry.get("data"), entry.get("weight", 1), entry.get("images")
    if not isinstance(data, str) or not data:
        raise DataError(f"mixture {path}: source {n} has no path of its data")
    for name in ("name", "images", "format"):
        if not isinstance(entry.get(name), str | None):
            raise DataError(f"mixture {path}: source {n}: `{name}` must be a text")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e6:
        raise DataError(f"mixture {path}: source {n}: weight {weight!r}: expected a number above 0")
    found = _locate(data, path)
    files = find_files(found) if found.is_dir() else [found]
    folder = _locate(images, path) if images else None
    return [Source(file, folder, entry.get("format"), entry.get("name") or "", float(weight)) for file in files]


def _locate(name: str, mixture: Path) -> Path:
    beside = mixture.parent / name
    return beside if beside.exists() or not Path(name).exists() else Path(name).absolute()

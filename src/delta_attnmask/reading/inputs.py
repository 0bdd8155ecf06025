"""What the user names as data becomes the files to read: a file, several, a pattern, a folder, or a mixture file.

Nothing is opened here but what lists files: `state.json` and `dataset_dict.json` of `datasets`, and mixtures.
"""

import json
from collections.abc import Sequence
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
_MAX_LIST_BYTES = 64 << 20


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
    sources = [source for location in locations for source in _expand(location)]
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
    from delta_attnmask.reading.mixture import read_mixture

    if (url := as_url(location)) is not None:
        return [Source(fetch_file(url))]
    path = Path(location)
    if not _exists(path) and has_magic(location):
        found = [match for match in _match(path) if not _is_about(match)]
        if not found and ("*" in location or "?" in location):
            raise DataError(f"no file matches {location}")
        if found:
            return [source for match in found for source in _expand(str(match))]
    if path.is_dir():
        return [Source(file) for file in find_files(path)]
    return read_mixture(path) or [Source(path)]


def _match(pattern: Path) -> list[Path]:
    """What an absolute pattern matches; of hidden names only those that it begins with a dot as well.

    `glob.glob` would follow links within `**`: three of them to their own folder are as many paths as 3 to the 40th.
    """
    root = Path(pattern.anchor)
    try:
        matches = sorted(root.glob(str(pattern.relative_to(root))))
    except (OSError, ValueError) as error:
        raise DataError(f"the pattern {str(pattern)!r:.200} can't be matched: {error}") from error
    shown = {part for part in pattern.parts if part.startswith(".")}
    wants_hidden = any(has_magic(part) for part in shown)
    return [path for path in matches if wants_hidden or not _hidden_parts(path) - shown]


def _hidden_parts(path: Path) -> set[str]:
    return {part for part in path.parts if part.startswith(".")}


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{str(path)!r:.200}: {error.strerror}") from error


def find_files(folder: Path) -> list[Path]:
    """The data files of a folder; DataError where it holds several splits, or files of several kinds."""
    if (folder / "dataset_dict.json").is_file():
        splits = _read_info(folder / "dataset_dict.json").get("splits")
        names = [name for name in splits if isinstance(name, str)] if isinstance(splits, list) else []
        if len(names) != 1:
            raise DataError(f"{folder} has the splits {', '.join(names)}; name the folder of one of them")
        return find_files(_inside(folder, names[0]))
    if (folder / "state.json").is_file():
        files = _read_info(folder / "state.json").get("_data_files")
        listed = [file.get("filename") for file in files if isinstance(file, dict)] if isinstance(files, list) else []
        if not listed or not all(isinstance(name, str) for name in listed):
            raise DataError(f"{folder / 'state.json'} lists no data files")
        return [_inside(folder, name) for name in listed if isinstance(name, str)]
    return _search(folder)


def _search(folder: Path) -> list[Path]:
    try:
        found = sorted(path for path in folder.rglob("*") if _is_data(path.relative_to(folder)) and path.is_file())
    except OSError as error:
        raise DataError(f"{folder} can't be read: {error.strerror}") from error
    kinds = sorted({_FAMILIES[path.suffix.lower()] for path in found})
    if len(kinds) != 1:
        what = f"{' and '.join(kinds)} files" if kinds else f"no file with one of the endings {', '.join(_FAMILIES)}"
        raise DataError(f"{folder} has {what}; name the files, such as '{folder}/*.{(kinds or ['json'])[0].lower()}'")
    splits = sorted({split for path in found if (split := _find_split(path.relative_to(folder)))})
    if len(splits) > 1:
        raise DataError(f"{folder} has the splits {', '.join(splits)}; name one, such as '{folder}/**/{splits[-1]}*'")
    return found


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return not hidden and not _is_about(path) and path.suffix.lower() in _FAMILIES


def _is_about(path: Path) -> bool:
    return path.name in _ABOUT or path.name.endswith(".selection.json")


def _find_split(path: Path) -> str:
    """The split that a file's or its folder's name begins with, as on the hub: data/train-00000-of-00002.parquet."""
    for part in reversed(path.parts):
        for split in ("train", "validation", "val", "dev", "test"):
            if part.lower() == split or part.lower().startswith((f"{split}-", f"{split}.", f"{split}_")):
                return "validation" if split in {"val", "dev"} else split
    return ""


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{folder}: {name!r} leads out of the folder")
    return path


def _read_info(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise DataError(f"{path} is longer than {_MAX_LIST_BYTES} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    return found if isinstance(found, dict) else {}

"""The files of a table: one for each unit, or one for many that were merged. No torch here."""

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"(?:unit-(\d+)|merged-(\d+)-(\d+))\.parquet")


class Part(NamedTuple):
    """A file that holds the rows of the units `first` to `last`."""

    path: Path
    first: int
    last: int

    @property
    def units(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def is_merged(self) -> bool:
        return self.path.name.startswith("merged")


def unit_path(folder: Path, unit: int) -> Path:
    return folder / f"unit-{unit:05d}.parquet"


def merged_path(folder: Path, first: int, last: int) -> Path:
    return folder / f"merged-{first:05d}-{last:05d}.parquet"


def find_parts(folder: Path, names: Iterable[str] | None = None) -> list[Part]:
    """All parts in a folder, in order; a merged part stands before the units that it covers.

    names: what lies in the folder, if somebody else has looked.
    """
    found = []
    with suppress(FileNotFoundError):
        for name in os.listdir(folder) if names is None else names:  # noqa: PTH208 - names are all that is needed
            if match := _NAME.fullmatch(name):
                first, last = match[1] or match[2], match[1] or match[3]
                found.append(Part(folder / name, int(first), int(last)))
    return sorted(found, key=lambda part: (part.first, -part.last))


def without_covered(parts: Sequence[Part]) -> list[Part]:
    """Each unit once: unit files that a merged one covers are what a `merge` left that was killed."""
    kept: list[Part] = []
    for part in parts:
        if not kept or part.first > kept[-1].last:
            kept.append(part)
    return kept

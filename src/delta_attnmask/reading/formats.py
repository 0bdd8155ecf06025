"""The formats that can be read, by name. A new one is a file with two functions and a line here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.reading.llava import read_llava, recognises_llava
from delta_attnmask.reading.rows import RawRow
from delta_attnmask.records import Record


class Recognise(Protocol):
    def __call__(self, value: object) -> bool:
        """Whether a parsed row looks like the format."""


class Read(Protocol):
    def __call__(self, row: RawRow) -> Record:
        """The row as a record; it never raises: whatever is wrong becomes the record's `reason`."""


@dataclass(frozen=True)
class Format:
    name: str
    recognises: Recognise
    read: Read


FORMATS: dict[str, Format] = {"llava": Format("llava", recognises_llava, read_llava)}


def find_format(name: str) -> Format:
    """The format of that name; SettingsError if there is none."""
    if name not in FORMATS:
        raise SettingsError(f"format={name!r}: expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def detect_format(rows: Sequence[RawRow], path: object) -> Format:
    """The format that most of these rows look like; DataError, with the keys that were seen, if none does."""
    votes = {name: sum(fmt.recognises(row.value) for row in rows) for name, fmt in FORMATS.items()}
    best = max(votes, key=lambda name: votes[name])
    if votes[best]:
        return FORMATS[best]
    keys = sorted({key[:40] for row in rows if isinstance(row.value, dict) for key in row.value})
    seen = (
        f"the first {len(rows)} rows have the keys {keys[:20]}"
        if keys
        else f"none of the first {len(rows)} rows is an object"
    )
    raise DataError(f"{path} is in no known format ({', '.join(FORMATS)}): {seen}")

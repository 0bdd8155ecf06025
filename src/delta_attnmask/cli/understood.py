"""What the data were taken for, shown before the work begins: a wrong guess of the format must be seen at once."""

import sys
from itertools import islice

from delta_attnmask.cli.terminal import printable
from delta_attnmask.reading.formats import read_record
from delta_attnmask.reading.rows import FilePart, FileRows
from delta_attnmask.records import Record, Turn

_N_PARTS = 20
_N_LOOKED_AT = 8
_N_TURNS = 2
_N_CHARS = 80


def tell_format(dataset: FileRows) -> None:
    """Print to stderr what each file was taken for, and after the first of each format how a row was understood.

    Reads a few rows of each file and counts none.
    """
    told = set()
    for part in dataset.parts[:_N_PARTS]:
        _print(f"{part.path}: {part.container.kind}, read as {part.format.spec}")
        if part.format.spec not in told:
            told.add(part.format.spec)
            _print(_describe(first_record(part)))
    if len(dataset.parts) > _N_PARTS:
        _print(f"and {len(dataset.parts) - _N_PARTS:,} more files, read as {', '.join(_formats(dataset))}")


def first_record(part: FilePart) -> Record:
    """The first row of a file, or the first of some that can be used."""
    records = [read_record(part.format, row) for row in islice(part.container.rows(), _N_LOOKED_AT)]
    return next((record for record in records if not record.reason), records[0])


def show_text(turn: Turn) -> str:
    """A turn's text with a mark where an image stands."""
    return "".join("[image]" if part is None else part for part in turn.parts)


def shorten(text: str, n_chars: int) -> str:
    return text if len(text) <= n_chars else f"{text[:n_chars]}…"


def _describe(record: Record) -> str:
    if record.reason:
        return f"row {record.row} can't be used: {record.reason}"
    says = [f"{turn.role}: {shorten(show_text(turn), _N_CHARS)}" for turn in record.turns[:_N_TURNS]]
    if len(record.turns) > _N_TURNS:
        says.append(f"{len(record.turns) - _N_TURNS} more turns")
    images = ", ".join(shorten(str(image), _N_CHARS) for image in record.images[:_N_TURNS]) or "none"
    more = f" and {len(record.images) - _N_TURNS} more" if len(record.images) > _N_TURNS else ""
    return f"row {record.row} is {' | '.join(says)} | images: {images}{more}"


def _formats(dataset: FileRows) -> list[str]:
    return sorted({part.format.spec for part in dataset.parts[_N_PARTS:]})


def _print(line: str) -> None:
    print(f"data: {printable(line)}", file=sys.stderr)

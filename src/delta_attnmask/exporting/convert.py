"""Rows of any format to the format of a trainer, image for image and turn for turn. No torch here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import RowError, SettingsError
from delta_attnmask.exporting.places import ImagePlaces
from delta_attnmask.exporting.registration import register
from delta_attnmask.exporting.targets import Target
from delta_attnmask.exporting.writers import name_members, open_writer
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import ImageRef, Record

_ENDINGS = {"list": ".json", "lines": ".jsonl", "parquet": ".parquet", "tar": ".tar"}


@dataclass
class Converted:
    """What was written. refused: rows that the target can't say, with the reason. hint: how the trainer is told."""

    n_written: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    hint: str = ""


def convert_rows(dataset: FileRows, rows: NDArray[np.int64], target: Target, out: Path) -> Converted:
    """Write rows, in the order given, to `out`; a row that can't be said without loss is left out and told.

    Raises SettingsError where `out` has another ending than the format's files, ArtifactError where writing fails.
    """
    if (ending := _ENDINGS[target.layout]) != out.suffix:
        raise SettingsError(f"out={out}: {target.name} is written to one file; expected a name that ends in {ending}")
    done, places = Converted(), ImagePlaces(dataset, out)
    columns = ("prompt", "completion") if target.format.spec == "prompt-completion" else ("messages",)
    with open_writer(target.layout, out, columns) as write:
        for record in pick_records(dataset, rows):
            try:
                fields, images = _convert(record, dataset, target, places)
            except RowError as error:
                done.refused[record.row] = str(error)
                continue
            write(record.row, fields, images)
            done.n_written += 1
    if not done.n_written:
        reason = next(iter(done.refused.values()), "there is none")
        raise SettingsError(f"no row could be written as {target.name}; the first: {reason}")
    done.hint = register(target.name, out, places.root, columns)
    return done


def pick_records(dataset: FileRows, rows: NDArray[np.int64]) -> Iterator[Record]:
    """The records of rows, in the order given: in one pass if that is the input's, else one by one."""
    if np.array_equal(rows, np.sort(rows)):
        yield from _pick_ascending(dataset, rows.tolist())
        return
    for row in rows.tolist():
        yield from dataset.records(row, row + 1)


def _pick_ascending(records: Iterable[Record], rows: list[int]) -> Iterator[Record]:
    wanted = iter(rows)
    row = next(wanted, None)
    for record in records:
        if row is None:
            return
        if record.row == row:
            yield record
            row = next(wanted, None)


def _convert(
    record: Record, dataset: FileRows, target: Target, places: ImagePlaces
) -> tuple[dict[str, Any], list[bytes]]:
    if record.error:
        raise record.error
    if not target.holds_images:
        return target.convert(record, places.place(record.images)), []
    images = [dataset.read_image_bytes(reference) for reference in record.images]
    if target.layout == "tar":
        return target.convert(record, name_members(record.row, images)), images
    return target.convert(record, [ImageRef(place=(record.row, n)) for n in range(len(images))]), images

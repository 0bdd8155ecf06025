"""The test set as questions for other harnesses: each with its conversation so far and its images. No torch here."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from delta_attnmask.errors import RowError
from delta_attnmask.evaluating.turns import AskedTurn, Turns, asked_turns
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.records import Record


@dataclass(frozen=True)
class Item:
    """One question. images: as PNG, those that stand before the answer, in order."""

    record: Record
    asked: AskedTurn
    images: tuple[bytes, ...]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation before the answer; an image is {"type": "image"}."""
        return [
            {
                "role": turn.role,
                "content": [
                    {"type": "image"} if part is None else {"type": "text", "text": part} for part in turn.parts
                ],
            }
            for turn in self.record.turns[: self.asked.stop - 1]
        ]


@dataclass(frozen=True)
class Export:
    """What came of an export. left_out: rows that aren't in it, with the reason."""

    n_items: int
    left_out: dict[int, str]


def iter_items(
    dataset: Dataset, turns: Turns, left_out: dict[int, str], *, with_images_only: bool = False
) -> Iterator[Item]:
    """Every question of the data; rows that can't be used are put into `left_out` with the reason."""
    for record in dataset:
        if record.reason or (with_images_only and not record.images):
            left_out[record.row] = record.reason or "the row has no image"
            continue
        try:
            images = [_encoded(dataset, reference) for reference in record.images]
        except RowError as error:
            left_out[record.row] = str(error)
            continue
        for asked in asked_turns(record, turns):
            yield Item(record, asked, tuple(images[: asked.n_images]))


def _encoded(dataset: Dataset, reference: str) -> bytes:
    """The image as a PNG of the very pixels that `evaluate` shows: upright, RGB."""
    file = BytesIO()
    dataset.load_image(reference).save(file, "PNG")
    return file.getvalue()

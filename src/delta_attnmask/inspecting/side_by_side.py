"""The same rows under two models: where their pictures' tokens lie is found once, with the base model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from delta_attnmask.inspecting.attention import spread_rows
from delta_attnmask.inspecting.attention_page import SideBySide, image_tokens
from delta_attnmask.inspecting.cells import PlaceFinder, Places
from delta_attnmask.inspecting.inspection import Picture
from delta_attnmask.inspecting.measured import ModelAttention
from delta_attnmask.inspecting.views import split_views
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.records import Record
from delta_attnmask.scoring.setup import make_encoder


@dataclass(frozen=True)
class PlacedRow:
    """A row with its images, and where its image tokens lie."""

    record: Record
    images: tuple[Any, ...]
    places: Places


def place_rows(loaded: LoadedModel, dataset: Dataset, attention: ModelAttention, wanted: int) -> list[PlacedRow]:
    """Rows with images, evenly spread over those that were measured, and where their tokens lie."""
    with_images = [row for row, found in sorted(attention.rows.items()) if found.is_image.any()]
    finder = PlaceFinder(loaded, make_encoder(loaded))
    placed = []
    for position in spread_rows(len(with_images), wanted):
        row = with_images[position]
        record = next(dataset.records(row, row + 1))
        images = tuple(dataset.load_images(record.images))
        placed.append(PlacedRow(record, images, finder.find(record, images)))
    return placed


def pair_rows(placed: Sequence[PlacedRow], base: ModelAttention, tuned: ModelAttention) -> list[SideBySide]:
    """The placed rows that both models could be given."""
    rows = (row for row in placed if row.record.row in base.rows and row.record.row in tuned.rows)
    return [_pair(row, base, tuned) for row in rows]


def _pair(placed: PlacedRow, base: ModelAttention, tuned: ModelAttention) -> SideBySide:
    record = placed.record
    both = [model.rows[record.row] for model in (base, tuned)]
    fault = placed.places.fault
    pictures = []
    for number, (reference, image) in enumerate(zip(record.images, placed.images, strict=True)):
        before, after = (
            Picture(reference, image, split_views(placed.places.found, image_tokens(row), number)) for row in both
        )
        pictures.append((before, after))
    return SideBySide(
        row=record.row,
        label=" · ".join(text for text in (record.source, record.id) if text),
        question=next((turn.text.strip() for turn in record.turns if turn.role == "user"), ""),
        pictures=tuple(pictures),
        base=both[0],
        tuned=both[1],
        problem=f"No overlay is drawn, since {fault}." if fault else "",
    )

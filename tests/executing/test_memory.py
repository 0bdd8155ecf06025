"""Rows of large images are encoded bit by bit, so that memory is bounded, and every row is scored once all the same."""

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delta_attnmask.encoding.encoder import EncodedSample, Encoder, make_encoder
from delta_attnmask.encoding.row_encoder import EncodedRow, RowEncoder, n_bytes
from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import Record
from delta_attnmask.scoring.pipeline import EncodedRows, Unit, Window
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from delta_attnmask.settings import MaskSettings

Encoded = EncodedRow | RowError


@pytest.fixture
def dataset(embedded: Path) -> FileRows:
    return FileRows(embedded / "pool.json", embedded / "images", limit=20)


@pytest.fixture
def encoder(embedded_model: LoadedModel) -> Encoder:
    return make_encoder(embedded_model)


def samples(encoded: Sequence[Encoded]) -> list[EncodedSample]:
    return [row[""] for row in encoded if not isinstance(row, RowError)]


def test_large_images_are_not_held_together(dataset: FileRows, encoder: Encoder) -> None:
    images: list[weakref.ref[Any]] = []
    most: list[int] = []

    def load(reference: Any) -> Any:
        most.append(sum(image() is not None for image in images))  # beside the one that is read now
        image = dataset.load_image(reference)
        images.append(weakref.ref(image))
        return image

    records = list(dataset)[:12]
    together = samples(RowEncoder(encoder, load)(records))
    assert max(most) > 6
    most.clear()
    alone = samples(RowEncoder(encoder, load, max_pixels=1)(records))
    assert max(most) == 0
    for sample, other in zip(together, alone, strict=True):
        assert sample.inputs["pixel_values"].equal(other.inputs["pixel_values"])


def test_an_encoder_leaves_rows_where_those_before_take_much_memory(dataset: FileRows, encoder: Encoder) -> None:
    records = list(dataset)
    encode = RowEncoder(encoder, dataset.load_image, max_pixels=1, max_bytes=1)
    assert len(encode(records)) == 1
    assert len(encode(records[:0])) == 0


def test_an_error_of_the_storage_comes_at_its_own_row(dataset: FileRows, encoder: Encoder) -> None:
    records = [record for record in dataset if record.images][:4]
    lost = records[2].images

    def load(reference: Any) -> Any:
        if reference in lost:
            raise OSError("the network is down")
        return dataset.load_image(reference)

    encode = RowEncoder(encoder, load)
    assert len(encode(records)) == 2
    with pytest.raises(OSError, match="network"):
        encode(records[2:])


@pytest.mark.parametrize("n_workers", [0, 2])
def test_units_come_in_windows_within_their_bytes(
    dataset: FileRows, encoder: Encoder, embedded_model: LoadedModel, n_workers: int
) -> None:
    records = list(dataset)
    size = n_bytes(RowEncoder(encoder, dataset.load_image)(records[:1])[0])
    rows: EncodedRows[Encoded] = EncodedRows(
        RowEncoder(encoder, dataset.load_image, max_bytes=size),
        n_bytes,
        embedded_model.device,
        n_workers,
        max_bytes=5 * size,
        chunk=3,
    )
    units = [Unit(7, 13, records[:13]), Unit(3, 7, iter(records[13:]))]
    windows: list[Window[Encoded]] = list(rows.windows(units))
    rows.close()
    assert [record.row for window in windows for record, _ in window.rows] == [*range(20)]
    assert {window.unit: window.is_last for window in windows} == {7: True, 3: True}
    assert [window.unit for window in windows if window.is_last] == [7, 3]
    assert len(windows) > 4
    largest = max(n_bytes(encoded) for window in windows for _, encoded in window.rows)
    assert all(sum(n_bytes(encoded) for _, encoded in window.rows) < 5 * size + largest for window in windows)


def test_a_unit_in_windows_is_scored_as_a_whole_one(dataset: FileRows, embedded_model: LoadedModel) -> None:
    records = list(dataset)
    bad = replace(records[3], reason="planned", reason_code=ReasonCode.BAD_VALUE, turns=())
    records[3] = bad
    plan = ScoringPlan(MaskSettings.paper(), embed=True)
    whole, parts = (UnitScorer(embedded_model, dataset.load_image, plan) for _ in range(2))
    parts.encoded.max_bytes = 1
    (expected,), (found,) = (list(scorer.score([Unit(0, 20, records)])) for scorer in (whole, parts))
    assert [score.row for score in found.scores] == [*range(20)]
    assert [score.reason for score in found.scores] == [score.reason for score in expected.scores]
    assert found.embeddings.keys() == expected.embeddings.keys()
    for a, b in zip(found.scores, expected.scores, strict=True):
        assert a.delta == (None if b.delta is None else pytest.approx(b.delta, abs=1e-5))


def test_a_unit_with_fewer_rows_than_it_says_is_an_error(dataset: FileRows, embedded_model: LoadedModel) -> None:
    records: list[Record] = list(dataset)
    scorer = UnitScorer(embedded_model, dataset.load_image, ScoringPlan(MaskSettings.paper()))
    with pytest.raises(Exception, match="unit 0 has 20 rows, expected 21"):
        list(scorer.score([Unit(0, 21, records)]))

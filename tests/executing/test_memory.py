"""A unit of large images is encoded in parts, so that memory is bounded, and every row is scored once all the same."""

import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.scoring import rows, units
from delta_attnmask.scoring.setup import make_scorer
from delta_attnmask.scoring.units import PreparedUnit, ScoringPlan
from delta_attnmask.settings import MaskSettings


def test_threads_that_encode_end_with_the_unit(
    embedded: Path, embedded_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "has_own_cores", lambda device: True)  # as if it were a GPU
    dataset = Dataset(embedded / "pool.json", embedded / "images", limit=4)
    scorer = make_scorer(embedded_model, dataset, ScoringPlan(MaskSettings.paper()))
    threads: set[str] = set()
    encode = scorer._rows.encode
    monkeypatch.setattr(
        scorer._rows, "encode", lambda records: (threads.add(threading.current_thread().name), encode(records))[1]
    )
    assert len(scorer.prepare(0, dataset).samples) == 4
    assert all(name.startswith("encode") for name in threads)
    assert not threads & {thread.name for thread in threading.enumerate()}


def test_large_images_are_not_held_together(
    embedded: Path, embedded_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(embedded / "pool.json", embedded / "images", limit=12)
    scorer = make_scorer(embedded_model, dataset, ScoringPlan(MaskSettings.paper()))
    images: list[weakref.ref[Any]] = []
    most: list[int] = []

    def load(reference: str) -> Any:
        most.append(sum(image() is not None for image in images))  # beside the one that is read now
        image = dataset.load_image(reference)
        images.append(weakref.ref(image))
        return image

    monkeypatch.setattr(scorer._rows, "_load_image", load)
    together = scorer.prepare(0, dataset)
    assert max(most) > 6
    monkeypatch.setattr(rows, "_PIXELS_TOGETHER", 1)
    most.clear()
    alone = scorer.prepare(0, dataset)
    assert max(most) == 0
    for sample, other in zip(together.samples, alone.samples, strict=True):
        assert sample.inputs["pixel_values"].equal(other.inputs["pixel_values"])


def test_a_unit_is_encoded_in_parts(
    embedded: Path, embedded_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(embedded / "pool.json", embedded / "images", limit=20)
    records = list(dataset)
    records[3] = replace(records[3], reason="planned", reason_code="no_answer", turns=())
    scorer = make_scorer(embedded_model, dataset, ScoringPlan(MaskSettings.paper(), embed=True))
    whole = scorer.prepare(0, records)
    assert (len(whole.records), whole.rest) == (20, ())
    expected = scorer.compute(whole)

    monkeypatch.setattr(units, "_ROWS_AT_ONCE", 2)
    scorer.max_bytes = 5 * whole.samples[0].n_bytes
    first = scorer.prepare(0, records)
    assert 0 < len(first.records) < 20
    assert first.records + first.rest == tuple(records)
    seen: list[PreparedUnit] = []
    compute = scorer._compute
    monkeypatch.setattr(scorer, "_compute", lambda part: (seen.append(part), compute(part))[1])
    threads: set[str] = set()
    prepare = scorer.prepare
    monkeypatch.setattr(
        scorer, "prepare", lambda *unit: (threads.add(threading.current_thread().name), prepare(*unit))[1]
    )
    found = scorer.compute(first)
    assert threads == {threading.current_thread().name}  # on a CPU nothing is encoded beside the computing
    assert len(seen) > 2
    largest = max(sample.n_bytes for sample in whole.samples)
    assert all(sum(sample.n_bytes for sample in part.samples) < scorer.max_bytes + 2 * largest for part in seen)
    assert [score.row for score in found.scores] == [*range(20)]
    assert [score.reason for score in found.scores] == [score.reason for score in expected.scores]
    assert found.embeddings.keys() == expected.embeddings.keys()
    for a, b in zip(found.scores, expected.scores, strict=True):
        assert a.delta == (None if b.delta is None else pytest.approx(b.delta, abs=1e-5))

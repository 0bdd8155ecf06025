"""`score` on the embedded data against the naive reference, and in batches of any size and order."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from delta_attnmask import MaskSettings
from delta_attnmask.encoding.collate import plan_batches
from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.errors import RowError
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.delta import score_batch
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from tests.reference import naive_sweep

N_ROWS = 72
CONTRACT = 1e-4
ROUNDING = 1e-5
EVERY_VALUE = (
    MaskSettings(queries="all", tokens="all", replacement="zero", block=-2),
    MaskSettings(queries="answer", tokens="prompt", replacement="mean", block=-2),
    MaskSettings(queries="all", tokens="image", replacement="zero", block=-2),
)
EVERY_COMBINATION = tuple(
    MaskSettings(queries=queries, tokens=tokens, replacement=replacement, block=-2)
    for queries, tokens, replacement in product(("all", "answer"), ("all", "prompt", "image"), ("zero", "mean"))
)
Numbers = dict[tuple[int, MaskSettings], tuple[float, float, float]]  # loss, masked loss, delta by row and setting


@pytest.fixture(scope="module")
def dataset(embedded: Path) -> FileRows:
    return FileRows(embedded / "pool.json", embedded / "images", limit=N_ROWS)


@pytest.fixture(scope="module")
def scorer(embedded_model: LoadedModel, dataset: FileRows) -> UnitScorer:
    return UnitScorer(embedded_model, dataset.load_image, ScoringPlan(MaskSettings.paper()))


@pytest.fixture(scope="module")
def samples(scorer: UnitScorer, dataset: FileRows) -> Sequence[EncodedSample]:
    encoded = scorer.encode(list(dataset.records(0, N_ROWS)))
    samples = [row[""] for row in encoded if not isinstance(row, RowError)]
    assert len(samples) == len(encoded)
    return samples


@pytest.fixture(scope="module")
def scored(
    embedded_model: LoadedModel, dataset: FileRows, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Numbers, int]:
    """What `score --sweep` writes, and how many rows it says are ok."""
    plan = ScoringPlan(MaskSettings.paper(), EVERY_COMBINATION)
    run = score_dataset(embedded_model, dataset, tmp_path_factory.mktemp("run"), plan, unit_rows=64)
    table = run.read_scores().to_pylist()
    numbers: Numbers = {
        (row["row"], MaskSettings.paper()): (row["loss"], row["masked_loss"], row["delta"])
        for row in table
        if row["status"] == "ok"
    }
    for shard in sorted((run.path / "sweep").iterdir()):
        for line in pq.read_table(shard).to_pylist():
            row, masked_loss, delta = (line.pop(name) for name in ("row", "masked_loss", "delta"))
            numbers[row, MaskSettings(**line)] = (table[row]["loss"], masked_loss, delta)
    return numbers, sum(row["status"] == "ok" for row in table)


def reference(
    model: LoadedModel, scorer: UnitScorer, samples: Sequence[EncodedSample], grid: Sequence[MaskSettings]
) -> Iterator[tuple[int, MaskSettings, tuple[float, float, float]]]:
    """Row, setting and the naive score; rows without an image are left out where only those are masked."""
    image_token = model.model.config.image_token_index
    for planned in plan_batches(samples, 8192):
        batch = scorer.batches.collate(planned)
        naive = naive_sweep(model.model, dict(batch.inputs), batch.labels, grid, image_token=image_token)
        for setting, score in zip(grid, naive, strict=True):
            columns = torch.stack([score.loss, score.masked_loss, score.delta], dim=1).tolist()
            for sample, (loss, masked_loss, delta) in zip(planned, columns, strict=True):
                if sample.n_image_tokens or setting.tokens != "image":
                    yield sample.row, setting, (loss, masked_loss, delta)


def largest_difference(numbers: Numbers, expected: Numbers) -> float:
    assert all(key in numbers for key in expected)
    return max(abs(a - b) for key in expected for a, b in zip(numbers[key], expected[key], strict=True))


def test_every_row_is_scored(scored: tuple[Numbers, int]) -> None:
    numbers, n_ok = scored
    assert n_ok == N_ROWS
    assert {row for row, _ in numbers} == set(range(N_ROWS))


def test_equals_the_reference_for_every_value_of_every_setting(
    embedded_model: LoadedModel,
    scorer: UnitScorer,
    samples: Sequence[EncodedSample],
    scored: tuple[Numbers, int],
) -> None:
    expected = {
        (row, setting): score for row, setting, score in reference(embedded_model, scorer, samples, EVERY_VALUE)
    }
    assert len({row for row, _ in expected}) == N_ROWS
    assert max(abs(delta) for *_, delta in expected.values()) > 100 * CONTRACT  # a wrong one would show
    largest = largest_difference(scored[0], expected)
    print(f"largest difference: {largest:.1e} nats")
    assert largest < CONTRACT


def test_equals_the_reference_for_every_combination(
    embedded_model: LoadedModel, scorer: UnitScorer, samples: Sequence[EncodedSample], scored: tuple[Numbers, int]
) -> None:
    some = [*samples[:9], *(sample for sample in samples if not sample.n_image_tokens)][:12]
    rows = reference(embedded_model, scorer, some, EVERY_COMBINATION)
    assert largest_difference(scored[0], {(row, setting): score for row, setting, score in rows}) < CONTRACT


def test_rows_without_an_image_have_no_score_where_only_images_are_masked(
    samples: Sequence[EncodedSample], scored: tuple[Numbers, int]
) -> None:
    text_only = [sample.row for sample in samples if not sample.n_image_tokens]
    assert text_only
    for row in text_only:
        for setting in EVERY_COMBINATION:
            masked_loss = scored[0][row, setting][1]
            assert (masked_loss != masked_loss) == (setting.tokens == "image")


def test_batches_of_any_size_and_order_agree(scorer: UnitScorer, samples: Sequence[EncodedSample]) -> None:
    with_image = [sample for sample in samples if sample.n_image_tokens][:24]
    shuffled = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()
    alone = in_batches(scorer, with_image, 1)
    others = [in_batches(scorer, with_image, size) for size in (7, 16)]
    others.append(in_batches(scorer, [with_image[i] for i in shuffled], 16)[torch.tensor(shuffled).argsort()])
    largest = max(float((other - alone).abs().max()) for other in others)
    print(f"largest difference: {largest:.1e} nats")
    assert largest < ROUNDING


def in_batches(scorer: UnitScorer, samples: Sequence[EncodedSample], size: int) -> Tensor:
    """Loss, masked loss and delta of each sample, in the order given."""
    parts = []
    for start in range(0, len(samples), size):
        batch = scorer.batches.collate(samples[start : start + size])
        score = score_batch(scorer.loaded.model, batch.inputs, batch.labels, MaskSettings.paper())
        parts.append(torch.stack([score.loss, score.masked_loss, score.delta], dim=1))
    return torch.cat(parts)

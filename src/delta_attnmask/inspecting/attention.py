"""Where one model's attention goes over many rows: per block, per row, and what it would mask."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from delta_attnmask.batches import EncodedBatch, TokenRoles
from delta_attnmask.encoding.collate import plan_batches
from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.errors import DataError, RowError
from delta_attnmask.inspecting.measured import ModelAttention, RowAttention
from delta_attnmask.inspecting.refusals import refusals
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.attention.shares import read_shares
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.scoring.delta import score_batch
from delta_attnmask.scoring.setup import make_scorer
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from delta_attnmask.settings import MaskSettings

_MAP_ELEMENTS = 1 << 26  # of one block's maps: 256 MiB in float32

Advance = Callable[[int], None]  # rows done so far


def spread_rows(n_rows: int, wanted: int) -> list[int]:
    """At most `wanted` rows, evenly spread over the data, the same for every model."""
    return sorted({int(row) for row in np.linspace(0, n_rows - 1, min(wanted, n_rows)).round()})


def measure_attention(
    loaded: LoadedModel, dataset: Dataset, rows: Sequence[int], settings: MaskSettings, advance: Advance
) -> ModelAttention:
    """Run the rows through the model, in batches as large as one block's maps allow.

    Raises UnsupportedModelError for a model whose maps can't be read, DataError where no row can be used.
    """
    scorer = make_scorer(loaded, dataset, ScoringPlan(settings))
    unit = scorer.prepare(0, (next(dataset.records(row, row + 1)) for row in rows))
    found: dict[int, RowAttention] = {}
    failures = {row: str(error) for row, error in unit.failures.items()}
    n_done = len(failures)
    for batch in _batches(unit.samples, _n_heads(loaded)):
        for outcome in _measure_batch(scorer, batch, settings):
            if isinstance(outcome, RowAttention):
                found[outcome.row] = outcome
            else:
                failures.update(outcome)
            n_done += 1
            advance(n_done)
    if not found:
        example = next(iter(failures.values()), "there are no rows")
        raise DataError(f"{loaded.name}: none of {len(rows)} rows can be used; the first reason: {example}")
    return ModelAttention(loaded.name, len(next(iter(found.values())).shares), found, failures)


def _n_heads(loaded: LoadedModel) -> int:
    return int(getattr(examine(loaded.model).decoder_config, "num_attention_heads", 32))


def _batches(samples: Sequence[EncodedSample], n_heads: int) -> Iterator[list[EncodedSample]]:
    """Samples of similar length, as many as one block's maps leave room for."""
    longest = max((sample.n_tokens for sample in samples), default=1)
    yield from plan_batches(samples, max(longest, _MAP_ELEMENTS // (n_heads * longest)))


def _measure_batch(
    scorer: UnitScorer, samples: list[EncodedSample], settings: MaskSettings
) -> Iterator[RowAttention | dict[int, str]]:
    """One outcome for each sample: what was measured, or the reason why not."""
    try:
        with refusals():
            yield from _measure(scorer, scorer.collate(samples), samples, settings)
        return
    except RowError as error:
        reason = str(error)
    if len(samples) == 1:
        yield {samples[0].row: reason}
        return
    for sample in samples:
        yield from _measure_batch(scorer, [sample], settings)


def _measure(
    scorer: UnitScorer, batch: EncodedBatch, samples: Sequence[EncodedSample], settings: MaskSettings
) -> list[RowAttention]:
    model, special = scorer.loaded.model, scorer.encoder.special_ids
    anatomy = examine(model)
    score = score_batch(model, batch.inputs, batch.labels, settings, special_ids=special)
    roles = TokenRoles.of(batch.inputs, batch.labels, anatomy.image_token_id, special)
    shares = read_shares(anatomy, batch.inputs, roles).stack().double().numpy()
    ids = batch.inputs["input_ids"]
    by_token: list[Any] = [tensor.cpu().numpy() for tensor in (ids, score.saliency, score.is_masked, roles.is_image)]
    losses = [loss.tolist() for loss in (score.loss, score.masked_loss)]
    found = []
    for index, sample in enumerate(samples):
        token_ids, saliency, is_masked, is_image = (values[index, : sample.n_tokens] for values in by_token)
        found.append(
            RowAttention(
                row=sample.row,
                ids=token_ids,
                shares=shares[:, index],
                loss=losses[0][index],
                masked_loss=losses[1][index],
                saliency=saliency.astype(np.float64),
                is_masked=is_masked,
                is_image=is_image,
            )
        )
    return found

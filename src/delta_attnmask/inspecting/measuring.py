"""Where one model's attention goes over many rows: per block, per row, and what it would mask."""

from collections.abc import Callable, Sequence

import numpy as np

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import DataError, RowError
from delta_attnmask.inspecting.comparison import ModelAttention, RowAttention
from delta_attnmask.inspecting.single_rows import SingleRows, model_errors_as_row_errors
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.shares import read_shares
from delta_attnmask.reading.rows import Rows
from delta_attnmask.scoring.delta import score_batch
from delta_attnmask.settings import MaskSettings

Advance = Callable[[int], None]  # rows done so far


def spread_rows(n_rows: int, wanted: int) -> list[int]:
    """At most `wanted` rows, evenly spread over the data, the same for every model."""
    return sorted({int(row) for row in np.linspace(0, n_rows - 1, min(wanted, n_rows)).round()})


def measure_attention(
    loaded: LoadedModel, dataset: Rows, rows: Sequence[int], settings: MaskSettings, advance: Advance
) -> ModelAttention:
    """Run the rows through the model, one at a time: memory is one block's maps of one row.

    Raises SettingsError for a block that the model lacks, UnsupportedModelError for a model whose maps can't be read,
    DataError where no row can be used.
    """
    examine(loaded.model).resolve_block(settings.block)
    source = SingleRows(loaded, dataset)
    found: dict[int, RowAttention] = {}
    failures: dict[int, str] = {}
    for n_done, row in enumerate(rows, start=1):
        try:
            with model_errors_as_row_errors():
                found[row] = _measure(source, row, settings)
        except RowError as error:
            failures[row] = str(error)
        advance(n_done)
    if not found:
        example = next(iter(failures.values()), "there are no rows")
        raise DataError(f"{loaded.name}: none of {len(rows)} rows can be used; the first reason: {example}")
    return ModelAttention(loaded.name, len(next(iter(found.values())).shares), found, failures)


def _measure(source: SingleRows, row: int, settings: MaskSettings) -> RowAttention:
    batch = source.encode(source.read(row)).batch
    model, special = source.loaded.model, source.special_ids
    anatomy = examine(model)
    score = score_batch(model, batch.inputs, batch.labels, settings, special_ids=special)
    roles = TokenRoles.of(batch.inputs, batch.labels, anatomy.image_token_id, special)
    return RowAttention(
        ids=batch.inputs["input_ids"][0].cpu().numpy(),
        shares=read_shares(anatomy, batch.inputs, roles)[:, 0].double().numpy(),
        loss=float(score.loss[0]),
        masked_loss=float(score.masked_loss[0]),
        saliency=score.saliency[0].cpu().double().numpy(),
        is_masked=score.is_masked[0].cpu().numpy(),
        is_image=roles.is_image[0].cpu().numpy(),
    )

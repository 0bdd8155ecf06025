"""Two models' attention over the same rows: differences with intervals, and how far their picks agree. No torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.derived import derive
from delta_attnmask.errors import DataError
from delta_attnmask.statistics import Estimate, Values, mean_of_columns

MEASURES = ("entropy", "image", "question", "sink", "answer_to_image")
_ABOUT_IMAGES = ("image", "answer_to_image")
_N_GROUPS = 3  # of blocks: early, middle and late ones


@dataclass(frozen=True)
class RowAttention:
    """One row under one model.

    ids: its tokens. is_masked: of each token. shares: `[block, measure]`, see modeling.shares.
    loss, masked_loss: nats per answer token.
    """

    ids: NDArray[np.int64]
    is_masked: NDArray[np.bool_]
    shares: Values
    loss: float
    masked_loss: float
    has_image: bool


Pairs = Sequence[tuple[RowAttention, RowAttention]]  # each row under the base and under the tuned model


@dataclass(frozen=True)
class Shift:
    """One measure in a run of blocks: its mean in each model, and the mean difference tuned − base by row.

    first_block, last_block: both counted from the input. n_rows: rows that the measure is defined for.
    """

    measure: str
    first_block: int
    last_block: int
    n_rows: int
    base: Estimate
    tuned: Estimate
    difference: Estimate

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference excludes zero."""
        return self.difference.low > 0 or self.difference.high < 0


@dataclass(frozen=True)
class Comparison:
    """Base against tuned, over the rows that both could be given.

    shifts: measure after measure, each over all blocks first, then in each third of them.
    tokens_shared: mean over rows of the share of masked tokens that both models mask. tokens_by_chance: what random
        picks would give.
    form: the score that orders rows. n_kept: how many are the best `keep` of them. n_shared: of these, how many both
        models keep.
    """

    n_rows: int
    n_blocks: int
    shifts: tuple[Shift, ...]
    tokens_shared: Estimate
    tokens_by_chance: float
    form: str
    n_kept: int
    n_shared: int


def spread_rows(n_rows: int, wanted: int) -> list[int]:
    """At most `wanted` rows, evenly spread over the data, the same for every model."""
    return sorted({int(row) for row in np.linspace(0, n_rows - 1, min(wanted, n_rows)).round()})


def compare(
    base: Mapping[int, RowAttention], tuned: Mapping[int, RowAttention], form: str, keep: float = 0.2
) -> Comparison:
    """Compare row by row; only rows that both models have count.

    form: the column that orders rows, as `select` knows it. keep: share of the rows that is picked.
    Raises DataError where the models don't have the same blocks, or cut a row into different tokens.
    """
    rows = sorted(base.keys() & tuned.keys())
    if not rows:
        raise DataError("no row fits both models")
    pairs = [(base[row], tuned[row]) for row in rows]
    n_blocks, n_others = (len(found.shares) for found in pairs[0])
    if n_blocks != n_others:
        raise DataError(
            f"the base model has {n_blocks} blocks with attention, the tuned one {n_others}; expected a model and a "
            "finetuned copy of it"
        )
    for row, (one, other) in zip(rows, pairs, strict=True):
        if not np.array_equal(one.ids, other.ids):
            raise DataError(
                f"row {row}: the models cut it into different tokens ({len(one.ids)} and {len(other.ids)}), so their "
                "attention can't be compared token by token; expected a model and a finetuned copy of it"
            )
    masked = [(one.is_masked, other.is_masked) for one, other in pairs if one.is_masked.any()]
    shared = np.array([[(one & other).sum() / one.sum()] for one, other in masked])
    n_kept = max(1, round(keep * len(pairs)))
    best, others = (
        np.argsort(-_scores([pair[side] for pair in pairs], form), kind="stable")[:n_kept] for side in (0, 1)
    )
    return Comparison(
        n_rows=len(rows),
        n_blocks=n_blocks,
        shifts=tuple(shift for name in MEASURES for shift in _compare_measure(pairs, name)),
        tokens_shared=mean_of_columns(shared)[0] if masked else Estimate(1.0, 1.0, 1.0),
        tokens_by_chance=float(np.mean([one.is_masked.mean() for one, _ in pairs])),
        form=form,
        n_kept=n_kept,
        n_shared=len(np.intersect1d(best, others)),
    )


def _compare_measure(pairs: Pairs, name: str) -> Iterator[Shift]:
    """Nothing for a measure that needs an image where no row has one."""
    wanted = [pair for pair in pairs if name not in _ABOUT_IMAGES or pair[0].has_image]
    if not wanted:
        return
    index = MEASURES.index(name)
    base, tuned = (np.stack([pair[side].shares[:, index] for pair in wanted]) for side in (0, 1))  # [row, block]
    blocks = np.arange(base.shape[1])
    groups = [blocks, *(group for group in np.array_split(blocks, _N_GROUPS) if len(group))]
    means = [np.stack([values[:, group].mean(1) for group in groups], axis=1) for values in (base, tuned, tuned - base)]
    for group, *estimates in zip(groups, *map(mean_of_columns, means), strict=True):
        yield Shift(name, int(group[0]), int(group[-1]), len(wanted), *estimates)


def _scores(rows: Sequence[RowAttention], form: str) -> Values:
    columns = {
        "loss": np.array([row.loss for row in rows]),
        "masked_loss": np.array([row.masked_loss for row in rows]),
    }
    columns["delta"] = columns["masked_loss"] - columns["loss"]
    stored: Callable[[str], Values] = columns.__getitem__
    return columns[form] if form in columns else derive(form, stored)

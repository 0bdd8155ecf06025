"""Two models' attention over the same rows: differences with intervals, and how far their picks agree. No torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.derived import derive
from delta_attnmask.errors import DataError
from delta_attnmask.statistics import Estimate, Values, mean_of_columns, rounded, spearman

MEASURES = ("entropy", "image", "question", "sink", "answer_to_image")
_ABOUT_IMAGES = ("image", "answer_to_image")
_N_GROUPS = 3  # of blocks: early, middle and late ones


@dataclass(frozen=True)
class RowAttention:
    """One row under one model.

    ids: its tokens. shares: `[block, measure]`, see modeling.shares. loss, masked_loss: nats.
    saliency: of each token. is_masked, is_image: of each token. All `[token]`.
    """

    ids: NDArray[np.int64]
    shares: Values
    loss: float
    masked_loss: float
    saliency: Values
    is_masked: NDArray[np.bool_]
    is_image: NDArray[np.bool_]


@dataclass(frozen=True)
class ModelAttention:
    """All rows that one model could be given, by their number, and why not the others. n_blocks: that were measured."""

    name: str
    n_blocks: int
    rows: dict[int, RowAttention] = field(repr=False)
    failures: dict[int, str]

    @property
    def rows_with_images(self) -> list[int]:
        return [row for row, found in sorted(self.rows.items()) if found.is_image.any()]


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
class PickOverlap:
    """How far the two models pick the same.

    tokens: mean over rows of the share of masked tokens that both mask. tokens_by_chance: what random picks would give.
    n_rows: rows in all. rows_kept: how many the picked share of them is.
    rows_shared: of these, how many both models keep by the score `form`.
    score_rank_correlation: Spearman's, of the score over rows.
    """

    tokens: Estimate
    tokens_by_chance: float
    form: str
    n_rows: int
    rows_kept: int
    rows_shared: int
    score_rank_correlation: float | None


@dataclass(frozen=True)
class Comparison:
    """Base against tuned. n_rows: rows that both could be given. n_failed: rows that either could not.

    shifts: measure after measure, each over all blocks first, then in each third of them.
    """

    base: str
    tuned: str
    n_rows: int
    n_failed: int
    n_blocks: int
    shifts: tuple[Shift, ...]
    picks: PickOverlap

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(base: ModelAttention, tuned: ModelAttention, form: str, keep: float = 0.2) -> Comparison:
    """Compare row by row; only rows that both models were given count.

    form: the column that orders rows, as `select` knows it. keep: share of the rows that is picked.
    Raises DataError where the models don't have the same blocks, or cut a row into different tokens.
    """
    if base.n_blocks != tuned.n_blocks:
        raise DataError(
            f"{base.name} has {base.n_blocks} blocks with attention, {tuned.name} has {tuned.n_blocks}; "
            "expected a model and a finetuned copy of it"
        )
    rows = sorted(base.rows.keys() & tuned.rows.keys())
    if not rows:
        raise DataError(f"no row can be given to both {base.name} and {tuned.name}")
    for row in rows:
        _require_same_tokens(row, base, tuned)
    pairs = [(base.rows[row], tuned.rows[row]) for row in rows]
    return Comparison(
        base=base.name,
        tuned=tuned.name,
        n_rows=len(rows),
        n_failed=len(base.failures.keys() | tuned.failures.keys()),
        n_blocks=base.n_blocks,
        shifts=tuple(shift for name in MEASURES for shift in _compare_measure(pairs, name)),
        picks=_compare_picks(pairs, form, keep),
    )


Pairs = Sequence[tuple[RowAttention, RowAttention]]


def _require_same_tokens(row: int, base: ModelAttention, tuned: ModelAttention) -> None:
    one, other = base.rows[row].ids, tuned.rows[row].ids
    if not np.array_equal(one, other):
        raise DataError(
            f"row {row}: {base.name} and {tuned.name} cut it into different tokens ({len(one)} and {len(other)}), so "
            "their attention can't be compared token by token; expected a model and a finetuned copy of it"
        )


def _compare_measure(pairs: Pairs, name: str) -> Iterator[Shift]:
    """Nothing for a measure that needs an image where no row has one."""
    wanted = [pair for pair in pairs if name not in _ABOUT_IMAGES or pair[0].is_image.any()]
    if not wanted:
        return
    index = MEASURES.index(name)
    base, tuned = (np.stack([pair[side].shares[:, index] for pair in wanted]) for side in (0, 1))  # [row, block]
    blocks = np.arange(base.shape[1])
    groups = [blocks, *(group for group in np.array_split(blocks, _N_GROUPS) if len(group))]
    means = [np.stack([values[:, group].mean(1) for group in groups], axis=1) for values in (base, tuned, tuned - base)]
    for group, *estimates in zip(groups, *map(mean_of_columns, means), strict=True):
        yield Shift(name, int(group[0]), int(group[-1]), len(wanted), *estimates)


def _compare_picks(pairs: Pairs, form: str, keep: float) -> PickOverlap:
    masked = [(one, other) for one, other in pairs if one.is_masked.any()]
    shared = np.array([[(one.is_masked & other.is_masked).sum() / one.is_masked.sum()] for one, other in masked])
    scores = [_scores([pair[side] for pair in pairs], form) for side in (0, 1)]
    n_kept = max(1, round(keep * len(pairs)))
    kept = [set(np.argsort(-values, kind="stable")[:n_kept].tolist()) for values in scores]
    return PickOverlap(
        tokens=mean_of_columns(shared)[0] if masked else Estimate(1.0, 1.0, 1.0),
        tokens_by_chance=float(np.mean([one.is_masked.mean() for one, _ in pairs])),
        form=form,
        n_rows=len(pairs),
        rows_kept=n_kept,
        rows_shared=len(kept[0] & kept[1]),
        score_rank_correlation=rounded(spearman(*scores)),
    )


def _scores(rows: Sequence[RowAttention], form: str) -> Values:
    columns = {
        "loss": np.array([row.loss for row in rows]),
        "masked_loss": np.array([row.masked_loss for row in rows]),
    }
    columns["delta"] = columns["masked_loss"] - columns["loss"]
    stored: Callable[[str], Values] = columns.__getitem__
    return columns[form] if form in columns else derive(form, stored)

"""What was measured of a model's attention: plain arrays. No torch here."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RowAttention:
    """One row under one model.

    ids: its tokens. shares: `[block, measure]`, see modeling.attention.shares. loss, masked_loss: nats.
    saliency: of each token. is_masked, is_image: of each token. All `[token]`.
    """

    row: int
    ids: NDArray[np.int64]
    shares: NDArray[np.float64]
    loss: float
    masked_loss: float
    saliency: NDArray[np.float64]
    is_masked: NDArray[np.bool_]
    is_image: NDArray[np.bool_]


@dataclass(frozen=True)
class ModelAttention:
    """All rows that one model could be given, by their number, and why not the others. n_blocks: that were measured."""

    name: str
    n_blocks: int
    rows: dict[int, RowAttention] = field(repr=False)
    failures: dict[int, str]

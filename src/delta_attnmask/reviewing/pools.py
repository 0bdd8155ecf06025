"""The rows that a review draws from: what was selected, and what it is compared with."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError

COLUMNS = ("row", "source", "status", "question", "loss")  # what is read of a run's scores

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pools:
    """Rows in ascending order, all of them usable.

    selected, control: what pairs are drawn from. Rows that both selections keep tell nothing about either, so against
        another selection these are the rows that only one of the two keeps.
    selected_set, control_set: what contact sheets are drawn from: the whole selections.
    """

    selected: Rows
    control: Rows
    selected_set: Rows
    control_set: Rows


def choose_pools(scores: pa.Table, selected: Rows, against: str, other: Rows | None = None) -> Pools:
    """Pools for `against`: random rows, left rows, or those of the other selection, whose rows are then given.

    Raises SettingsError where one side would be empty.
    """
    usable = scores["row"].to_numpy()[pc.equal(scores["status"], "ok").to_numpy()]
    kept = np.intersect1d(selected, usable)
    if other is not None:
        control = np.intersect1d(other, usable)
        pools = Pools(np.setdiff1d(kept, control), np.setdiff1d(control, kept), kept, control)
    elif against == "left":
        left = np.setdiff1d(usable, kept)
        pools = Pools(kept, left, kept, left)
    else:
        pools = Pools(kept, usable, kept, usable)
    if not len(pools.selected) or not len(pools.control):
        raise SettingsError(f"against={against}: nothing to compare, as one side has no rows; compare with another")
    return pools

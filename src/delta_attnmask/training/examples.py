"""What one epoch consists of: which rows, how often, which of them may be changed, and in which batches."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import DataError, RowError, SettingsError
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.training.masked_states import ALLOWED, KEYS
from delta_attnmask.training.plan import TrainingPlan
from delta_attnmask.training.rows import encode_row
from delta_attnmask.training.top_rows import Numbers, key_number, scored_rows, top_positions


@dataclass(frozen=True)
class Examples:
    """The examples of one epoch, all `[example]`.

    rows: positions in the input; a row that comes twice is there twice. keys: the rows' key numbers.
    is_allowed: whether the example may be changed. kinds: number of its group; a batch holds one group's examples only.
    """

    rows: Numbers
    keys: Numbers
    is_allowed: NDArray[np.bool_]
    kinds: Numbers

    def __len__(self) -> int:
        return len(self.rows)

    def to_dict(self) -> dict[str, Any]:
        return {"row": self.rows, "key": self.keys, "is_allowed": self.is_allowed}


def choose_examples(table: pa.Table, plan: TrainingPlan) -> Examples:
    """The usable rows of `table` (as `find_usable_rows` gives it), the chosen ones twice where the plan says so.

    Raises SettingsError where the plan's scores know none of the rows.
    """
    usable = table.filter(pc.equal(table["status"], "ok"))
    rows = usable["row"].to_numpy()
    keys = np.array([key_number(key) for key in usable["key"].to_pylist()], dtype=np.int64)
    _, kinds = np.unique(usable["inputs"].to_pylist(), return_inverse=True)
    is_chosen = _chosen(keys, plan)
    if not plan.is_twice:
        return Examples(rows, keys, is_chosen, kinds)
    again = np.flatnonzero(is_chosen)
    order = np.concatenate([np.arange(len(rows)), again])
    is_second = np.arange(len(order)) >= len(rows)
    return Examples(rows[order], keys[order], is_second, kinds[order])


def _chosen(keys: Numbers, plan: TrainingPlan) -> NDArray[np.bool_]:
    """True for the rows in the top share of the plan's scores, among these rows; for all without scores."""
    if plan.from_scores is None:
        return np.ones(len(keys), dtype=bool)
    scored, values = scored_rows(plan.from_scores, plan.by)
    order = np.argsort(scored, kind="stable")
    places = np.searchsorted(scored[order], keys).clip(max=len(scored) - 1)
    is_known = scored[order][places] == keys
    found = np.where(is_known, values[order][places], np.nan)
    if not np.isfinite(found).any():
        raise SettingsError(f"from_scores={str(plan.from_scores)!r}: it has a score for none of the rows")
    is_chosen = np.zeros(len(keys), dtype=bool)
    is_chosen[top_positions(found, plan.top_share)] = True
    return is_chosen


class GroupedBatches(Sampler[list[int]]):
    """Batches of examples of one group each, in an order that seed and epoch decide.

    Every example comes once an epoch. The last batch of a group is smaller where its size doesn't divide.
    """

    def __init__(self, kinds: Numbers, batch_size: int, seed: int):
        self._kinds, self._size, self._seed = kinds, batch_size, seed
        self._epoch = 0
        self._n_batches = len(self._plan(0))

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[list[int]]:
        yield from self._plan(self._epoch)

    def _plan(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng([self._seed, epoch])
        batches: list[list[int]] = []
        for kind in np.unique(self._kinds):
            members = rng.permutation(np.flatnonzero(self._kinds == kind))
            batches += [members[at : at + self._size].tolist() for at in range(0, len(members), self._size)]
        return [batches[index] for index in rng.permutation(len(batches))]


class ExampleCollator:
    """Encodes the rows of a batch; labels are those of the very tokens that scoring counts.

    dtype: of pixels. marks: also give the columns by which masking tells examples apart.
    """

    def __init__(self, dataset: Dataset, encoder: Encoder, dtype: torch.dtype, *, marks: bool):
        self._dataset, self._encoder, self._dtype, self._marks = dataset, encoder, dtype, marks

    @property
    def special_ids(self) -> set[int]:
        return self._encoder.special_ids

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        samples = [self._encode(example["row"]) for example in examples]
        batch = collate(samples, self._encoder.pad_token_id).to(torch.device("cpu"), self._dtype)
        columns = {**batch.inputs, "labels": batch.labels}
        if self._marks:
            columns[KEYS] = torch.tensor([example["key"] for example in examples])
            columns[ALLOWED] = torch.tensor([example["is_allowed"] for example in examples])
        return columns

    def _encode(self, row: int) -> EncodedSample:
        (record,) = self._dataset.records(row, row + 1)
        try:
            return encode_row(record, self._dataset, self._encoder)
        except RowError as error:
            raise DataError(f"row {row} could be read before the training, and can't be now: {error}") from error

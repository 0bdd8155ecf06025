"""Score one unit of rows: encode, batch, score, and give every row exactly one result."""

import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from delta_attnmask.batches import EncodedBatch
from delta_attnmask.errors import DeltaAttnMaskError, RowError
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.collate import collate, plan_batches
from delta_attnmask.reading.encoding import EncodedSample, Encoder
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore
from delta_attnmask.scoring.delta import score_batch
from delta_attnmask.settings import MaskSettings

ImageLoader = Callable[[str], Any]


@dataclass(frozen=True)
class PreparedUnit:
    """A unit whose rows are encoded, or failed with a reason."""

    index: int
    records: tuple[Record, ...]
    samples: tuple[EncodedSample, ...]
    failures: dict[int, str]


class UnitScorer:
    """Scores units of records with one model.

    batch_tokens: upper bound of samples times longest sample in a batch; halved when memory runs out.
    load_image: gives the PIL image for a reference as written in the data; raises RowError.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        encoder: Encoder,
        load_image: ImageLoader,
        settings: MaskSettings,
        batch_tokens: int,
        n_workers: int = 2,
    ):
        self.loaded = loaded
        self.encoder = encoder
        self.settings = settings
        self.batch_tokens = batch_tokens
        self._load_image = load_image
        self._workers = ThreadPoolExecutor(n_workers, thread_name_prefix="encode")

    def prepare(self, index: int, records: Iterable[Record]) -> PreparedUnit:
        """Read images and encode; no row is lost, a bad one is kept with its reason."""
        rows = tuple(records)
        samples, failures = [], {}
        for record, outcome in zip(rows, self._workers.map(self._encode, rows), strict=True):
            if isinstance(outcome, str):
                failures[record.row] = outcome
            else:
                samples.append(outcome)
        return PreparedUnit(index, rows, tuple(samples), failures)

    def compute(self, unit: PreparedUnit) -> list[SampleScore]:
        """Score the encoded rows; one result for each row of the unit, in input order."""
        numbers: dict[int, dict[str, float]] = {}
        failures = dict(unit.failures)
        for batch in plan_batches(unit.samples, self.batch_tokens):
            self._score(batch, numbers, failures)
        samples = {sample.row: sample for sample in unit.samples}
        return [
            _result(record, samples.get(record.row), numbers.get(record.row), failures.get(record.row, ""))
            for record in unit.records
        ]

    def collate(self, samples: Sequence[EncodedSample]) -> EncodedBatch:
        """The batch on the model's device, pixels in the model's precision."""
        return collate(samples, self.encoder.pad_token_id).to(self.loaded.device, self.loaded.dtype)

    def _encode(self, record: Record) -> EncodedSample | str:
        if record.reason:
            return record.reason
        try:
            return self.encoder.encode(record, [self._load_image(reference) for reference in record.images])
        except RowError as error:
            return str(error)

    def _score(
        self, samples: list[EncodedSample], numbers: dict[int, dict[str, float]], failures: dict[int, str]
    ) -> None:
        """Score a batch. A batch that fails is halved, so that one bad sample takes no other with it."""
        try:
            batch = self.collate(samples)
            score = score_batch(self.loaded.model, batch.inputs, batch.labels, self.settings)
        except (RuntimeError, ValueError, IndexError, DeltaAttnMaskError) as error:
            out_of_memory = isinstance(error, torch.OutOfMemoryError)
            if len(samples) == 1:
                failures[samples[0].row] = f"the model refuses the row: {_first_line(error)}"
                return
            self._halve(samples, out_of_memory)
            middle = len(samples) // 2
            self._score(samples[:middle], numbers, failures)
            self._score(samples[middle:], numbers, failures)
            return
        for name in ("loss", "masked_loss", "delta"):
            for row, value in zip(batch.rows, getattr(score, name).tolist(), strict=True):
                numbers.setdefault(row, {})[name] = value

    def _halve(self, samples: list[EncodedSample], out_of_memory: bool) -> None:
        if out_of_memory:
            torch.cuda.empty_cache()
            self.batch_tokens = max(1, sum(sample.n_tokens for sample in samples) // 2)


def _result(
    record: Record, sample: EncodedSample | None, numbers: dict[str, float] | None, reason: str
) -> SampleScore:
    """The row's score; a number that is not finite makes it a failed row."""
    if numbers is not None and not all(math.isfinite(value) for value in numbers.values()):
        reason, numbers = f"the loss is not finite ({numbers['loss']}, masked {numbers['masked_loss']})", None
    return SampleScore(
        row=record.row,
        id=record.id,
        key=record.key,
        source=record.source,
        status="ok" if numbers is not None else "failed",
        reason=reason,
        n_tokens=sample.n_tokens if sample else None,
        n_image_tokens=sample.n_image_tokens if sample else None,
        n_answer_tokens=sample.n_answer_tokens if sample else None,
        **(numbers or {}),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

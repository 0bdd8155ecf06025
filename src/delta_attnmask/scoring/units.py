"""Score one unit of rows: encode, batch, score, and give every row exactly one result."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from delta_attnmask.batches import EncodedBatch
from delta_attnmask.encoding.collate import collate, plan_batches
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.executing.filling import fill
from delta_attnmask.executing.halving import FATAL, run_halving
from delta_attnmask.executing.local import ahead
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.attention.received import AttentionBackend
from delta_attnmask.modeling.devices import has_own_cores
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.positions import with_positions
from delta_attnmask.modeling.selfcheck import probe_labels, self_check, tolerance
from delta_attnmask.modeling.sharing import image_cost
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore
from delta_attnmask.scoring.delta import loss_batch, sweep_batch
from delta_attnmask.scoring.results import row_score
from delta_attnmask.scoring.rivals import Rival, VariantRival
from delta_attnmask.scoring.rows import Encoded, ImageLoader, RowEncoder, n_bytes
from delta_attnmask.settings import MaskSettings, require_positive

_CHECK_ATTEMPTS = 8
_N_ENCODERS = 2  # threads, beside a device with cores of its own
_ROWS_AT_ONCE = 32  # encoded before their bytes are counted
_ROWS_A_TASK = 8  # of such a thread
MAX_BYTES = 256 << 20  # of encoded rows; at most four times as much is held, and those counted too late


@dataclass
class _Found:
    """What the batches of a unit have given so far, by row."""

    numbers: dict[int, dict[str, float]] = field(default_factory=dict)
    failures: dict[int, RowError] = field(default_factory=dict)
    sweep: dict[int, list[float]] = field(default_factory=dict)
    embeddings: dict[int, NDArray[np.float16]] = field(default_factory=dict)


BatchFunction = Callable[[EncodedBatch, _Found], None]


@dataclass(frozen=True)
class ScoringPlan:
    """What is computed for each row.

    settings: those of the columns `masked_loss` and `delta`. form: the column that orders the rows; for `select`.
    calibration: the SHA-256 of the calibration that gave both, for the manifest; empty without one.
    sweep: further settings, which share the forward; those that the model can't have are left out.
    rivals: further scores by name.
    batch_tokens: upper bound of samples times longest sample in a batch; halved when memory runs out.
    embed: keep an embedding of each row. attention: which code sums the attention.
    """

    settings: MaskSettings
    sweep: tuple[MaskSettings, ...] = ()
    rivals: Mapping[str, Rival] = field(default_factory=dict)
    batch_tokens: int = 8192
    form: str = "delta"
    embed: bool = False
    attention: AttentionBackend = "auto"
    calibration: str = ""

    def __post_init__(self) -> None:
        require_positive(batch_tokens=self.batch_tokens)

    @property
    def variants(self) -> dict[str, VariantRival]:
        return {name: rival for name, rival in self.rivals.items() if isinstance(rival, VariantRival)}


@dataclass(frozen=True)
class PreparedUnit:
    """A unit whose rows are encoded, or failed with a reason.

    variants: changed rows by the score that reads them. rest: the unit's rows behind `records`, not encoded yet.
    """

    index: int
    records: tuple[Record, ...]
    samples: tuple[EncodedSample, ...]
    failures: dict[int, RowError]
    variants: dict[str, list[EncodedSample]]
    rest: tuple[Record, ...] = ()


@dataclass(frozen=True)
class ScoredUnit:
    """One score for each row of the unit, in input order, and the masked losses of the sweep.

    sweep: row to the masked loss in nats under each setting of the plan's sweep, for the rows that were scored.
    embeddings: row to its embedding `[hidden]`, for the same rows, if the plan asks for it.
    """

    index: int
    scores: list[SampleScore]
    sweep: dict[int, list[float]]
    embeddings: dict[int, NDArray[np.float16]] = field(default_factory=dict)


class UnitScorer:
    """Scores units of records with one model.

    load_image: gives the PIL image for a reference as written in the data; raises RowError.
    on_rows: is called after each batch with how many rows it scored.
    """

    def __init__(self, loaded: LoadedModel, encoder: Encoder, load_image: ImageLoader, plan: ScoringPlan):
        self.loaded = loaded
        self.encoder = encoder
        self.plan = plan
        self.batch_tokens = plan.batch_tokens
        self.max_bytes = MAX_BYTES
        self.on_rows: Callable[[int], None] = lambda n_rows: None
        self._is_checked = False
        self._image_cost = image_cost(examine(loaded.model))
        self._rows = RowEncoder(encoder, load_image, plan.variants)
        self._has_own_cores = has_own_cores(loaded.device)

    def prepare(self, index: int, records: Iterable[Record]) -> PreparedUnit:
        """Read images and encode; no row is lost, a bad one is kept with its reason.

        Large images fill the memory before all rows are encoded; `compute` then encodes the others bit by bit.
        """
        rows = tuple(records)
        samples: list[EncodedSample] = []
        failures: dict[int, RowError] = {}
        variants: dict[str, list[EncodedSample]] = {name: [] for name in self.plan.variants}
        with ThreadPoolExecutor(_N_ENCODERS, thread_name_prefix="encode") as pool:

            def encode(some: Sequence[Record]) -> Iterable[Encoded]:
                if not self._has_own_cores:
                    return self._rows.encode(some)
                shares = [some[start : start + _ROWS_A_TASK] for start in range(0, len(some), _ROWS_A_TASK)]
                return chain.from_iterable(pool.map(self._rows.encode, shares))

            encoded = fill(rows, encode, n_bytes, self.max_bytes, _ROWS_AT_ONCE)
        n_rows = len(encoded)
        for record, outcome in zip(rows[:n_rows], encoded, strict=True):
            if isinstance(outcome, RowError):
                failures[record.row] = outcome
                continue
            samples.append(outcome[""])
            for name in variants.keys() & outcome.keys():
                variants[name].append(outcome[name])
        return PreparedUnit(index, rows[:n_rows], tuple(samples), failures, variants, rows[n_rows:])

    def self_check(self, unit: PreparedUnit) -> str | None:
        """Check the model on two short samples, once; the line that says what was found, None if done before.

        Samples on which the model fails are passed over: they become failed rows later. Where two samples together
        give other losses than each alone, the scorer goes on with batches of one.
        """
        shortest = sorted(unit.samples, key=lambda sample: (sample.n_image_tokens == 0, sample.n_tokens))
        for start in range(0 if self._is_checked else min(_CHECK_ATTEMPTS, len(shortest))):
            first, *others = shortest[start:]
            alike = [sample for sample in others if sample.inputs.keys() == first.inputs.keys()]
            try:
                line = self._check([first, *alike[:1]])
            except FATAL:
                raise
            except Exception:  # noqa: BLE001 - a model's code may raise anything
                continue
            self._is_checked = True
            return line
        return None

    def _check(self, samples: list[EncodedSample]) -> str:
        batch = self.collate(samples)
        found = self_check(self.loaded.model, batch.inputs, batch.labels, self.plan.attention)
        line = f"{found}; {examine(self.loaded.model).describe_block(self.plan.settings.block)}"
        together, alone = self._losses(samples), [self._losses([sample])[0] for sample in samples]
        if max(abs(a - b) for a, b in zip(together, alone, strict=True)) > tolerance(self.loaded.dtype):
            self.batch_tokens = 1
            line += "; samples change each other in a batch, so they run one by one"
        return line

    def _losses(self, samples: list[EncodedSample]) -> list[float]:
        """Each sample's loss over tokens of all its text: few tokens' differ by rounding alone."""
        model, batch = self.loaded.model, self.collate(samples)
        labels = probe_labels(examine(model), batch.inputs, batch.labels)
        losses: list[float] = loss_batch(model, batch.inputs, labels, attention=self.plan.attention).tolist()
        return losses

    def compute(self, unit: PreparedUnit) -> ScoredUnit:
        """Score the rows; one result for each row of the unit, in input order."""
        whole = ScoredUnit(unit.index, [], {})
        for part in self._parts(unit):
            scored = self._compute(part)
            whole.scores.extend(scored.scores)
            whole.sweep.update(scored.sweep)
            whole.embeddings.update(scored.embeddings)
        return whole

    def _parts(self, unit: PreparedUnit) -> Iterator[PreparedUnit]:
        """What is encoded of the unit, then its rest; beside a device with cores of its own each part is encoded
        while the one in front is computed.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
            part = unit
            while part.rest:
                prepare = partial(self.prepare, part.index, part.rest)
                following = pool.submit(prepare).result if self._has_own_cores else prepare
                yield part
                part = following()
            yield part

    def _compute(self, unit: PreparedUnit) -> ScoredUnit:
        """Score what is encoded."""
        found = _Found(failures=dict(unit.failures))
        self._run_all(unit.samples, self._score, found)
        for name, variants in unit.variants.items():
            self._run_all(variants, partial(self._score_variant, name), _Found(found.numbers))
        samples = {sample.row: sample for sample in unit.samples}
        scores = [
            row_score(record, samples.get(record.row), found.numbers.get(record.row), found.failures.get(record.row))
            for record in unit.records
        ]
        kept = {score.row for score in scores if score.status == "ok"}
        sweep = {row: losses for row, losses in found.sweep.items() if row in kept}
        embeddings = {row: vector for row, vector in found.embeddings.items() if row in kept}
        return ScoredUnit(unit.index, scores, sweep, embeddings)

    def collate(self, samples: Sequence[EncodedSample]) -> EncodedBatch:
        """The batch on the model's device, pixels in the model's precision."""
        batch = collate(samples, self.encoder.pad_token_id)
        batch = replace(batch, inputs=with_positions(self.loaded.model, batch.inputs))
        return batch.to(self.loaded.device, self.loaded.dtype)

    def _run_all(self, samples: Sequence[EncodedSample], score: BatchFunction, found: _Found) -> None:
        """Score in batches; beside a GPU each is collated, and its copy begun, while the one before it is scored."""
        batches = plan_batches(samples, self.batch_tokens, self._image_cost)
        for batch, collated in ahead(batches, self.collate, overlaps=self._has_own_cores):
            run = partial(self._run, score, found, batch, collated)
            run_halving(batch, run, lambda sample, error: found.failures.update({sample.row: error}), self._shrink)

    def _run(
        self,
        score: BatchFunction,
        found: _Found,
        whole: list[EncodedSample],
        collated: Future[EncodedBatch],
        samples: list[EncodedSample],
    ) -> None:
        """Score samples of a batch, all of which is collated already unless that failed."""
        is_collated = samples is whole and collated.exception() is None
        score(collated.result() if is_collated else self.collate(samples), found)

    def _shrink(self, samples: list[EncodedSample]) -> None:
        """Make batches smaller after this one was too much."""
        self.batch_tokens = min(self.batch_tokens, len(samples) * max(sample.n_tokens for sample in samples) // 2)

    def _score(self, batch: EncodedBatch, found: _Found) -> None:
        result = sweep_batch(
            self.loaded.model,
            batch.inputs,
            batch.labels,
            [self.plan.settings, *self.plan.sweep],
            rivals=self.plan.rivals,
            embed=self.plan.embed,
            special_ids=self.encoder.special_ids,
            attention=self.plan.attention,
        )
        main = result.scores[0]
        columns = {"loss": main.loss, "masked_loss": main.masked_loss, "delta": main.delta, **result.rivals}
        for name, values in columns.items():
            for row, value in zip(batch.rows, values.tolist(), strict=True):
                found.numbers.setdefault(row, {})[name] = value
        is_unmaskable = main.masked_loss.isnan() & ~main.is_masked.any(-1)
        for index in is_unmaskable.nonzero().flatten().tolist():
            found.failures[batch.rows[index]] = _no_such_token(self.plan.settings)
        if self.plan.sweep:
            masked = torch.stack([score.masked_loss for score in result.scores[1:]], dim=1).tolist()
            found.sweep.update(zip(batch.rows, masked, strict=True))
        if result.embeddings is not None:
            found.embeddings.update(zip(batch.rows, result.embeddings.half().cpu().numpy(), strict=True))
        self.on_rows(len(batch.rows))

    def _score_variant(self, name: str, batch: EncodedBatch, found: _Found) -> None:
        attention = self.plan.attention
        losses = loss_batch(self.loaded.model, batch.inputs, batch.labels, attention=attention).tolist()
        for row, value in zip(batch.rows, losses, strict=True):
            if row in found.numbers:
                found.numbers[row][name] = value


def _no_such_token(settings: MaskSettings) -> RowError:
    excluded = "" if settings.exclude == "none" else f", exclude={settings.exclude!r}"
    detail = f"the row has no token that may be masked with tokens={settings.tokens!r}{excluded}"
    return RowError(ReasonCode.NOTHING_MASKABLE, detail)

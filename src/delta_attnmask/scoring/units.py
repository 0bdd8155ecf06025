"""Score units of rows with one model: every row gets exactly one result."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from delta_attnmask.batches import EncodedBatch
from delta_attnmask.derived import derive, derived_names
from delta_attnmask.encoding.encoder import EncodedSample, make_encoder
from delta_attnmask.encoding.row_encoder import EncodedRow, RowEncoder, n_bytes
from delta_attnmask.errors import ReasonCode, RowError, SettingsError
from delta_attnmask.judge import P_GOOD, Judge
from delta_attnmask.modeling.anatomy import Anatomy, examine
from delta_attnmask.modeling.halves import N_HALVES, Halves, half_of
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.records import ImageRef, Record, answer_type, question
from delta_attnmask.scores import SampleScore
from delta_attnmask.scoring.checking import ModelCheck
from delta_attnmask.scoring.delta import loss_batch, sweep_batch
from delta_attnmask.scoring.pipeline import Batches, EncodedRows, Unit, Window, begin_copy, in_step
from delta_attnmask.scoring.rivals import Rival, VariantRival
from delta_attnmask.settings import AttentionBackend, MaskSettings, require_positive

EncodedWindow = Window[EncodedRow | RowError]


@dataclass(frozen=True)
class ScoringPlan:
    """What is computed for each row.

    settings: those of the columns `masked_loss` and `delta`. form: the column that orders the rows; for `select`.
    calibration: the SHA-256 of the calibration that gave both, for the manifest; empty without one.
    judge: gives the column `p_good`; the rivals have to hold what it reads.
    adapters: the folders of two adapters, one for each half of the rows, see `Halves`; none for the model as it is.
    sweep: further settings, which share the forward; those that the model can't have are left out.
    rivals: further scores by name.
    batch_tokens: upper bound of samples times longest sample in a batch; halved when memory runs out. None chooses by
        the memory that a GPU has left.
    embed: keep an embedding of each row. attention: which code sums the attention.
    workers: processes that encode; None chooses by the device.
    compile: run compiled blocks; None does where a run has so many rows that it pays.
    """

    settings: MaskSettings
    sweep: tuple[MaskSettings, ...] = ()
    rivals: Mapping[str, Rival] = field(default_factory=dict)
    batch_tokens: int | None = None
    form: str = "delta"
    embed: bool = False
    attention: AttentionBackend = "auto"
    calibration: str = ""
    judge: Judge | None = None
    adapters: tuple[str, ...] = ()
    workers: int | None = None
    compile: bool | None = None

    def __post_init__(self) -> None:
        require_positive(batch_tokens=self.batch_tokens)
        if self.workers is not None and self.workers < 0:
            raise SettingsError(f"workers={self.workers}: expected 0 or more")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns beside those that every run has."""
        return (*self.rivals, *([P_GOOD] if self.judge else ()))

    @property
    def variants(self) -> dict[str, VariantRival]:
        return {name: rival for name, rival in self.rivals.items() if isinstance(rival, VariantRival)}


@dataclass
class ScoredUnit:
    """One score for each row of the unit, in input order, and the masked losses of the sweep.

    sweep: row to the masked loss in nats under each setting of the plan's sweep, for the rows that were scored.
    embeddings: row to its embedding `[hidden]`, for the same rows, if the plan asks for it.
    check: what the self-check found in the model, if this unit was the first that it could be made with.
    """

    index: int
    scores: list[SampleScore] = field(default_factory=list)
    sweep: dict[int, list[float]] = field(default_factory=dict)
    embeddings: dict[int, NDArray[np.float16]] = field(default_factory=dict)
    check: str = ""


class _Job(NamedTuple):
    """A batch of a window: rows themselves (variant ""), or a variant of them. half: theirs; 0 without adapters."""

    window: EncodedWindow
    half: int
    variant: str
    samples: list[EncodedSample]
    collated: EncodedBatch | None


@dataclass
class _Found:
    """What the batches of a window have given so far, by row."""

    numbers: dict[int, dict[str, float]] = field(default_factory=dict)
    failures: dict[int, RowError] = field(default_factory=dict)


class UnitScorer:
    """Scores units of rows with one model, under the part of a plan's sweep that the model can have.

    load_image: gives the PIL image of a record's image reference; raises RowError.
    on_rows: is called after each batch with how many rows it scored.
    Until `close` the plan's adapters are on the model, and its blocks compiled if the plan says so.
    Raises SettingsError where the settings themselves don't fit the model, ArtifactError where the adapters don't.
    """

    def __init__(self, loaded: LoadedModel, load_image: Callable[[ImageRef], Any], plan: ScoringPlan) -> None:
        anatomy, self.encoder = examine(loaded.model), make_encoder(loaded)
        anatomy.resolve_block(plan.settings.block)
        if plan.settings.tokens == "image" and not self.encoder.takes_images:
            raise SettingsError("tokens='image': this model takes no images; use tokens='all' or 'prompt'")
        self.loaded, self.plan = loaded, replace(plan, sweep=fit_grid(plan.sweep, anatomy))
        self.batches = Batches(loaded, self.encoder.pad_token_id, plan.batch_tokens)
        variants = {name: rival.change for name, rival in plan.variants.items()}
        self.encode = RowEncoder(self.encoder, load_image, variants)
        self.encoded: EncodedRows[EncodedRow | RowError] = EncodedRows(
            self.encode, n_bytes, loaded.device, plan.workers
        )
        self.halves = Halves(loaded.model, plan.adapters) if plan.adapters else None
        self._anatomy = examine(loaded.model)  # with the adapters
        masked_block = plan.settings.block if plan.settings.fraction else None
        self._check = ModelCheck(
            loaded, self._anatomy, self.batches, plan.attention, masked_block, is_compiled=bool(plan.compile)
        )
        self.on_rows: Callable[[int], None] = lambda n_rows: None
        self._read_last: Callable[[], None] = _nothing

    def close(self) -> None:
        """End the worker processes, and leave the model as it was."""
        self.encoded.close()
        self._check.close()
        if self.halves is not None:
            self.halves.detach()

    def score(self, units: Iterable[Unit]) -> Iterator[ScoredUnit]:
        """Score the units in order; no row is lost, a bad one is kept with its reason.

        Raises UnsupportedModelError where the model can't be scored with.
        """
        scored, found, self._read_last = ScoredUnit(-1), _Found(), _nothing
        for item in in_step(self._jobs(self.encoded.windows(units)), self.loaded.device):
            if isinstance(item, _Job):
                self._run(item, found, scored)
                continue
            self._read(_nothing)
            scored.index = item.unit
            scored.scores += [self._score_of(record, encoded, found) for record, encoded in item.rows]
            found = _Found()
            if item.is_last:
                yield self._finished(scored)
                scored = ScoredUnit(-1)

    def score_records(self, records: Sequence[Record]) -> list[SampleScore]:
        """The scores of some records, in their order."""
        return [one for unit in self.score([Unit(0, len(records), records)] * bool(records)) for one in unit.scores]

    def _jobs(self, windows: Iterable[EncodedWindow]) -> Iterator["_Job | EncodedWindow"]:
        """The batches of each window, and the window itself once it has no more."""
        for window in windows:
            self._check(_samples(window, ""))
            for half in range(N_HALVES) if self.halves else (None,):
                for name in ("", *self.plan.variants):
                    for batch, collated in self.batches.ahead(_samples(window, name, half)):
                        yield _Job(window, half or 0, name, batch, collated)
            yield window

    def _run(self, job: _Job, found: _Found, scored: ScoredUnit) -> None:
        if self.halves is not None:
            self.halves.use_for(job.half)

        def on_failure(sample: EncodedSample, error: RowError) -> None:
            if not job.variant:
                found.failures[sample.row] = error

        def function(batch: EncodedBatch) -> None:
            if job.variant:
                self._score_variant(job.variant, batch, found)
            else:
                self._score(batch, found, scored)

        self.batches.run(job.samples, function, on_failure, job.collated)

    def _score(self, batch: EncodedBatch, found: _Found, scored: ScoredUnit) -> None:
        result = sweep_batch(
            self.loaded.model,
            batch.inputs,
            batch.labels,
            [self.plan.settings, *self.plan.sweep],
            rivals=self.plan.rivals,
            embed=self.plan.embed,
            special_ids=self.encoder.special_ids,
            attention=self.plan.attention,
            image_of=batch.image_of,
            anatomy=self._anatomy,
        )
        main = result.scores[0]
        columns = {"loss": main.loss, "masked_loss": main.masked_loss, "delta": main.delta, **result.rivals}
        is_unmaskable = main.masked_loss.isnan() & ~main.is_masked.any(-1)
        lines = [is_unmaskable, *columns.values(), *(score.masked_loss for score in result.scores[1:])]
        embeddings = [] if result.embeddings is None else [result.embeddings.half()]
        wait = begin_copy([torch.stack([line.to(main.loss.dtype) for line in lines], dim=1), *embeddings])

        def read() -> None:
            table, *vectors = wait()
            for row, (unmaskable, *numbers) in zip(batch.rows, table.tolist(), strict=True):
                found.numbers[row] = dict(zip(columns, numbers, strict=False))
                if self.plan.sweep:
                    scored.sweep[row] = numbers[len(columns) :]
                if unmaskable:
                    how = f"tokens={self.plan.settings.tokens!r}, exclude={self.plan.settings.exclude!r}"
                    detail = f"the row has no token that may be masked with {how}"
                    found.failures[row] = RowError(ReasonCode.NOTHING_MASKABLE, detail)
            for embedded in vectors:
                scored.embeddings.update(zip(batch.rows, embedded.numpy(), strict=True))
            self.on_rows(len(batch.rows))

        self._read(read)

    def _score_variant(self, name: str, batch: EncodedBatch, found: _Found) -> None:
        options: dict[str, Any] = {"attention": self.plan.attention, "image_of": batch.image_of}
        wait = begin_copy([loss_batch(self.loaded.model, batch.inputs, batch.labels, anatomy=self._anatomy, **options)])

        def read() -> None:
            for row, value in zip(batch.rows, wait()[0].tolist(), strict=True):
                if row in found.numbers:
                    found.numbers[row][name] = value

        self._read(read)

    def _read(self, following: Callable[[], None]) -> None:
        """Read what the last batch gave, now that the next one is under way; `following` reads that one."""
        last, self._read_last = self._read_last, following
        last()

    def _score_of(self, record: Record, encoded: EncodedRow | RowError, found: _Found) -> SampleScore:
        if isinstance(encoded, RowError):
            return row_score(record, None, None, encoded)
        return row_score(record, encoded[""], found.numbers.get(record.row), found.failures.get(record.row))

    def _finished(self, scored: ScoredUnit) -> ScoredUnit:
        """The unit without side tables of rows that failed, and with what the self-check found since the last one."""
        if self.plan.judge is not None:
            judge_scores(self.plan.judge, scored.scores)
        kept = {score.row for score in scored.scores if score.status == "ok"}
        scored.sweep = {row: losses for row, losses in scored.sweep.items() if row in kept}
        scored.embeddings = {row: vector for row, vector in scored.embeddings.items() if row in kept}
        scored.check = self._check.take_line()
        return scored


def _nothing() -> None:
    pass


def fit_grid(grid: Sequence[MaskSettings], anatomy: Anatomy) -> tuple[MaskSettings, ...]:
    """The settings of a grid that a model can have, each once.

    Without image tokens where it has none, without blocks that it lacks, and with the block that is masked instead
    where another can't be.
    """
    fitting = []
    for setting in grid:
        is_there = -anatomy.n_blocks <= setting.block < anatomy.n_blocks
        if not is_there or (setting.tokens == "image" and anatomy.image_token_id is None):
            continue
        instead = anatomy.resolve_block(setting.block) - anatomy.n_blocks
        fitting.append(setting if anatomy.has_block(setting.block) else replace(setting, block=instead))
    return tuple(dict.fromkeys(fitting))


def row_score(
    record: Record, sample: EncodedSample | None, numbers: Mapping[str, float] | None, error: RowError | None
) -> SampleScore:
    """The row's score; a loss that is not finite makes it a failed row."""
    given = dict(numbers or {})
    core = [given.pop(name, math.nan) for name in ("loss", "masked_loss", "delta")]
    if error is None and not all(map(math.isfinite, core)):
        error = RowError(ReasonCode.LOSS_NOT_FINITE, f"the loss is not finite ({core[0]}, masked {core[1]})")
    loss, masked_loss, delta = core if error is None else (None, None, None)
    return SampleScore(
        row=record.row,
        id=record.id,
        key=record.key,
        source=record.source,
        status="ok" if error is None else "failed",
        reason="" if error is None else error.detail,
        reason_code="" if error is None else error.code,
        question=question(record),
        answer_type=answer_type(record),
        n_turns=sum(turn.role == "assistant" for turn in record.turns),
        n_images=len(record.images),
        own=record.own,
        n_tokens=sample.n_tokens if sample else None,
        n_image_tokens=sample.n_image_tokens if sample else None,
        n_answer_tokens=sample.n_answer_tokens if sample else None,
        loss=loss,
        masked_loss=masked_loss,
        delta=delta,
        extra=dict(given) if error is None else {},
    )


def judge_scores(judge: Judge, scores: Sequence[SampleScore]) -> None:
    """Put `p_good` beside the scores of the rows that have any."""
    ok = [score for score in scores if score.status == "ok"]

    def stored(name: str) -> NDArray[np.float64]:
        found = [score.extra[name] if name in score.extra else getattr(score, name, None) for score in ok]
        return np.array([math.nan if number is None else number for number in found], dtype=np.float64)

    def column(name: str) -> NDArray[np.float64]:
        return derive(name, stored) if name in derived_names() else stored(name)

    for score, chance in zip(ok, judge.p_good(column).tolist(), strict=True):
        score.extra[P_GOOD] = chance


def _samples(window: EncodedWindow, name: str, half: int | None = None) -> list[EncodedSample]:
    """The encoded rows of a window, or a variant of them, where it could be encoded; those of a half, or all."""
    return [
        encoded[name]
        for record, encoded in window.rows
        if not isinstance(encoded, RowError) and name in encoded and half in (None, half_of(record.key))
    ]

"""One unit of rows: encode, run the references once, generate what differs, and give every row its lines."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from delta_attnmask.encoding.collate import collate, plan_batches
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.encoding.traits import form_of
from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.evaluating.asking import Lender, Turns
from delta_attnmask.evaluating.drafting import AskedAnswer, TokenGuesses, draft_answer, encode_answers, guess_tokens
from delta_attnmask.evaluating.generating import Generator, Opening, plan_generation, stop_tokens
from delta_attnmask.evaluating.measures import normalise
from delta_attnmask.evaluating.predictions import Prediction
from delta_attnmask.executing.filling import fill
from delta_attnmask.executing.halving import FATAL, run_halving
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.positions import with_positions
from delta_attnmask.modeling.selfcheck import tolerance
from delta_attnmask.modeling.sharing import image_cost
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.records import Record
from delta_attnmask.scoring.units import MAX_BYTES

_ROWS_AT_ONCE = 16  # encoded before their bytes are counted
Place = tuple[int, int | None, int]  # row, row whose images are shown instead, turn


@dataclass(frozen=True)
class EvaluationPlan:
    """What is asked, and how it is answered.

    turns: every answer of a conversation (behind the data's own earlier ones), or the last one alone.
    image_swap: ask everything again with the images of another row of the source.
    max_new_tokens: of an answer; None takes it from the data's longest.
    draft: take over what one forward over the references settles; the answers are the same (`drafting`).
    """

    turns: Turns = "all"
    image_swap: bool = True
    max_new_tokens: int | None = None
    seed: int = 0
    batch_tokens: int = 8192
    draft: bool = True


@dataclass(frozen=True)
class PreparedUnit:
    """A unit's rows as questions; what couldn't be encoded is in `failures`, by row and lender.

    rest: the unit's rows behind `records`, not encoded yet.
    """

    index: int
    records: tuple[Record, ...]
    questions: tuple[AskedAnswer, ...]
    failures: Mapping[tuple[int, int | None], RowError]
    rest: tuple[Record, ...] = ()


@dataclass
class _Found:
    """What the batches of a unit have given so far. guesses: by `id` of the sample."""

    guesses: dict[int, TokenGuesses] = field(default_factory=dict)
    answers: dict[Place, tuple[int, ...]] = field(default_factory=dict)
    failures: dict[Place, RowError] = field(default_factory=dict)


class UnitAnswerer:
    """Answers units of records with one model. lenders: by row, whose images are shown in the control."""

    def __init__(
        self,
        loaded: LoadedModel,
        encoder: Encoder,
        dataset: Dataset,
        plan: EvaluationPlan,
        limit: int,
        lenders: Mapping[int, Lender],
        n_workers: int = 2,
    ) -> None:
        self.loaded, self.encoder, self.plan, self.limit = loaded, encoder, plan, limit
        self.batch_tokens = plan.batch_tokens
        self.max_bytes = MAX_BYTES
        self._dataset, self._lenders = dataset, lenders
        self._is_checked = False
        self._image_cost = image_cost(examine(loaded.model))
        self._workers = ThreadPoolExecutor(n_workers, thread_name_prefix="encode")

    def prepare(self, index: int, records: Iterable[Record]) -> PreparedUnit:
        """Read images and encode; no row is lost, a bad one is kept with its reason.

        Large images fill the memory before all rows are encoded; `compute` then encodes the others bit by bit.
        """
        rows = tuple(records)
        questions: list[AskedAnswer] = []
        failures: dict[tuple[int, int | None], RowError] = {}
        encoded = fill(rows, partial(self._workers.map, self._encode), _n_bytes, self.max_bytes, _ROWS_AT_ONCE)
        n_rows = len(encoded)
        for record, outcomes in zip(rows[:n_rows], encoded, strict=True):
            for lender_row, outcome in outcomes.items():
                if isinstance(outcome, RowError):
                    failures[record.row, lender_row] = outcome
                else:
                    questions += outcome
        return PreparedUnit(index, rows[:n_rows], tuple(questions), failures, rows[n_rows:])

    def _shown(self, record: Record) -> list[Lender | None]:
        return [None, *([self._lenders[record.row]] if record.row in self._lenders else [])]

    def _encode(self, record: Record) -> dict[int | None, list[AskedAnswer] | RowError]:
        """The row's questions by the row whose images are shown instead of its own, or why it can't be encoded."""
        return {lender.row if lender else None: self._ask(record, lender) for lender in self._shown(record)}

    def _ask(self, record: Record, lender: Lender | None) -> list[AskedAnswer] | RowError:
        if record.error:
            return record.error
        try:
            shown = record if lender is None else replace(record, images=lender.images)
            images = self._dataset.load_images(shown.images)
            return encode_answers(self.encoder, shown, images, self.plan.turns, lender.row if lender else None)
        except RowError as error:
            return error

    def check_batching(self, unit: PreparedUnit) -> str | None:
        """Once: go on with batches of one where two samples together have other losses than alone; tells so then."""
        samples = _samples(unit.questions)
        alike = [sample for sample in samples if sample.inputs.keys() == samples[0].inputs.keys()][:2]
        if self._is_checked or len(alike) < 2:
            return None
        self._is_checked = True
        try:
            together = self._guesses(alike)
            alone = [self._guesses([sample])[0] for sample in alike]
        except FATAL:
            raise
        except Exception:  # noqa: BLE001 - a model's code may raise anything; the row's own run tells it
            return None
        pairs = zip(together, alone, strict=True)
        difference = max(float((one.loss.nanmean() - other.loss.nanmean()).abs()) for one, other in pairs)
        if difference <= tolerance(self.loaded.dtype):
            return None
        self.batch_tokens = 1
        return "samples change each other in a batch, so they run one by one"

    def compute(self, unit: PreparedUnit) -> tuple[list[Prediction], float]:
        """The unit's lines in input order, and the seconds that they took."""
        started = time.monotonic()
        lines = [line for part in self._parts(unit) for line in self._answer(part)]
        return lines, time.monotonic() - started

    def _parts(self, unit: PreparedUnit) -> Iterator[PreparedUnit]:
        """What is encoded of the unit, then its rest, as much at a time as memory is given."""
        yield unit
        while unit.rest:
            unit = self.prepare(unit.index, unit.rest)
            yield unit

    def _answer(self, unit: PreparedUnit) -> list[Prediction]:
        """The lines of what is encoded."""
        found = _Found()
        self._guess(unit.questions, found)
        stops = stop_tokens(self.loaded, self.encoder.special_ids, unit.questions)
        self._generate(unit, stops, found)
        return [*self._failed_rows(unit), *(self._line(unit, question, stops, found) for question in unit.questions)]

    def _guess(self, questions: Sequence[AskedAnswer], found: _Found) -> None:
        """Run the references, which gives their loss and the beginnings of the answers."""
        askers: dict[int, list[AskedAnswer]] = {}
        for question in questions:
            askers.setdefault(id(question.sample), []).append(question)
        samples = [asking[0].sample for asking in askers.values()]

        def run(batch: list[EncodedSample]) -> None:
            found.guesses.update(zip(map(id, batch), self._guesses(batch), strict=True))

        def on_failure(sample: EncodedSample, error: RowError) -> None:
            found.failures.update({_place(question): error for question in askers[id(sample)]})

        for batch in plan_batches(samples, self.batch_tokens, self._image_cost):
            run_halving(batch, run, on_failure, partial(self._shrink, max(sample.n_tokens for sample in batch)))

    def _guesses(self, batch: list[EncodedSample]) -> list[TokenGuesses]:
        collated = collate(batch, self.encoder.pad_token_id)
        collated = replace(collated, inputs=with_positions(self.loaded.model, collated.inputs))
        collated = collated.to(self.loaded.device, self.loaded.dtype)
        return guess_tokens(self.loaded.model, collated.inputs, collated.labels)

    def _generate(self, unit: PreparedUnit, stops: frozenset[int], found: _Found) -> None:
        generator = Generator(self.loaded, self.encoder.pad_token_id, stops, self.limit)
        openings = []
        for question in unit.questions:
            if _place(question) in found.failures:
                continue
            if not self.plan.draft:
                openings.append(Opening(question, (), question.n_reference_tokens))
                continue
            draft = draft_answer(question, found.guesses[id(question.sample)], stops, self.limit)
            if draft.is_finished:
                found.answers[_place(question)] = draft.tokens
            else:
                n_expected = question.n_reference_tokens - draft.n_agreed
                openings.append(Opening(question, draft.tokens, n_expected))

        def run(batch: list[Opening]) -> None:
            answers = generator.finish(batch)
            found.answers.update(zip((_place(opening.answer) for opening in batch), answers, strict=True))

        def on_failure(opening: Opening, error: RowError) -> None:
            found.failures[_place(opening.answer)] = error

        for batch in plan_generation(openings, self.batch_tokens, self.limit):
            longest = max(opening.n_prompt for opening in batch) + self.limit
            run_halving(batch, run, on_failure, partial(self._shrink, longest))

    def _shrink(self, longest: int, batch: Sequence[object]) -> None:
        """Make batches smaller after this one, no sample of more than `longest` tokens, was too much."""
        self.batch_tokens = min(self.batch_tokens, len(batch) * longest // 2)

    def _failed_rows(self, unit: PreparedUnit) -> list[Prediction]:
        records = {record.row: record for record in unit.records}
        return [
            _failed(Prediction(**_names(records[row]), swapped_row=lender), error)
            for (row, lender), error in unit.failures.items()
        ]

    def _line(self, unit: PreparedUnit, question: AskedAnswer, stops: frozenset[int], found: _Found) -> Prediction:
        record = unit.records[question.row - unit.records[0].row]
        asked = question.asked
        line = Prediction(
            **_names(record),
            turn=asked.turn,
            swapped_row=question.swapped_row,
            question=asked.question,
            reference=asked.reference,
            n_reference_tokens=question.n_reference_tokens,
        )
        if (error := found.failures.get(_place(question))) is not None:
            return _failed(line, error)
        loss = question.mean_loss(found.guesses[id(question.sample)])
        if not math.isfinite(loss):
            return _failed(line, RowError(ReasonCode.LOSS_NOT_FINITE, f"the loss is not finite ({loss})"))
        ids = found.answers[_place(question)]
        text = self.encoder.decode(ids).strip()
        return replace(
            line,
            prediction=text,
            exact=text == asked.reference,
            normalised=normalise(text) == normalise(asked.reference),
            same_form=form_of(text) == form_of(asked.reference),
            loss=loss,
            n_new_tokens=len(ids),
            ended=bool(ids) and ids[-1] in stops,
        )


def _n_bytes(outcomes: Mapping[int | None, list[AskedAnswer] | RowError]) -> int:
    asked = (questions for questions in outcomes.values() if not isinstance(questions, RowError))
    return sum(sample.n_bytes for questions in asked for sample in _samples(questions))


def _failed(line: Prediction, error: RowError) -> Prediction:
    return replace(line, status="failed", reason=error.detail, reason_code=error.code)


def _samples(questions: Iterable[AskedAnswer]) -> list[EncodedSample]:
    """The encoded conversations of the questions, each once."""
    return list({id(question.sample): question.sample for question in questions}.values())


def _place(question: AskedAnswer) -> Place:
    return question.row, question.swapped_row, question.asked.turn


def _names(record: Record) -> dict[str, Any]:
    return {"row": record.row, "id": record.id, "key": record.key, "source": record.source}

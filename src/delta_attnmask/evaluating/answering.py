"""Answer units of rows with one model: run the references once, generate what differs, give every row its lines."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from delta_attnmask.batches import EncodedBatch
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.encoding.traits import form_of
from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.evaluating.asking import Lender, Turns
from delta_attnmask.evaluating.drafting import AskedAnswer, TokenGuesses, draft_answer, encode_answers, guess_tokens
from delta_attnmask.evaluating.generating import Generator, Opening, plan_generation, stop_tokens
from delta_attnmask.evaluating.measures import normalise
from delta_attnmask.evaluating.predictions import Prediction
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.selfcheck import tolerance
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record
from delta_attnmask.scoring.pipeline import FATAL, Batches, EncodedRows, Unit, Window, run_halving

_CHUNK_BYTES = 64 << 20  # of encoded rows that are given back at a time

Place = tuple[int, int | None, int]  # row, row whose images are shown instead, turn
AskedRow = dict[int | None, list[AskedAnswer] | RowError]  # by the row whose images are shown instead of its own


@dataclass(frozen=True)
class EvaluationPlan:
    """What is asked, and how it is answered.

    turns: every answer of a conversation (after the data's own earlier ones), or the last one alone.
    image_swap: ask everything again with the images of another row of the source.
    max_new_tokens: of an answer; None takes it from the data's longest.
    draft: take over what one forward over the references settles; the answers are the same (`drafting`).
    workers: processes that encode; None chooses by the device.
    """

    turns: Turns = "all"
    image_swap: bool = True
    max_new_tokens: int | None = None
    seed: int = 0
    batch_tokens: int = 8192
    draft: bool = True
    workers: int | None = None


@dataclass
class _Found:
    """What the batches of a window have given so far. guesses: by `id` of the sample."""

    guesses: dict[int, TokenGuesses] = field(default_factory=dict)
    answers: dict[Place, tuple[int, ...]] = field(default_factory=dict)
    failures: dict[Place, RowError] = field(default_factory=dict)


@dataclass
class AnsweredUnit:
    """A unit's lines in input order, and the seconds that they took."""

    index: int
    lines: list[Prediction] = field(default_factory=list)
    seconds: float = 0.0


class AnswerEncoder:
    """Encodes rows as questions, a row's own and those with the images that `lenders` lends it."""

    def __init__(self, encoder: Encoder, dataset: Rows, turns: Turns, lenders: Mapping[int, Lender]) -> None:
        self._encoder, self._dataset, self._turns, self._lenders = encoder, dataset, turns, lenders

    def __call__(self, records: Sequence[Record]) -> list[AskedRow]:
        """The questions of each record; fewer than were given where they take much memory."""
        encoded: list[AskedRow] = []
        n_held = 0
        for record in records:
            shown = [None, *([self._lenders[record.row]] if record.row in self._lenders else [])]
            try:
                encoded.append({lender.row if lender else None: self._ask(record, lender) for lender in shown})
            except Exception:  # it is about this row alone, so those before it are done first
                if not encoded:
                    raise
                break
            n_held += _n_bytes(encoded[-1])
            if n_held >= _CHUNK_BYTES:
                break
        return encoded

    def _ask(self, record: Record, lender: Lender | None) -> list[AskedAnswer] | RowError:
        if record.error is not None:
            return record.error
        try:
            shown = record if lender is None else replace(record, images=lender.images)
            images = self._dataset.load_images(shown.images)
            return encode_answers(self._encoder, shown, images, self._turns, lender.row if lender else None)
        except RowError as error:
            return error


class UnitAnswerer:
    """Answers units of records with one model. lenders: by row, whose images are shown in the control."""

    def __init__(
        self,
        loaded: LoadedModel,
        encoder: Encoder,
        dataset: Rows,
        plan: EvaluationPlan,
        limit: int,
        lenders: Mapping[int, Lender],
        on_check: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.loaded, self.encoder, self.plan, self.limit = loaded, encoder, plan, limit
        self.batches = Batches(loaded, encoder.pad_token_id, plan.batch_tokens)
        encode = AnswerEncoder(encoder, dataset, plan.turns, lenders)
        self.encoded: EncodedRows[AskedRow] = EncodedRows(encode, _n_bytes, loaded.device, plan.workers)
        self._on_check = on_check
        self._is_checked = False

    def answer(self, units: Iterable[Unit]) -> Iterator[AnsweredUnit]:
        """Answer the units in order; no row is lost, a bad one is kept with its reason."""
        answered = AnsweredUnit(-1)
        for window in self.encoded.windows(units):
            started = time.monotonic()
            answered.index = window.unit
            answered.lines += self._answer(window)
            answered.seconds += time.monotonic() - started
            if window.is_last:
                yield answered
                answered = AnsweredUnit(-1)

    def _check_batching(self, samples: Sequence[EncodedSample]) -> None:
        """Once: continue with batches of one where two samples together have other losses than alone."""
        alike = [sample for sample in samples if sample.inputs.keys() == samples[0].inputs.keys()][:2]
        if self._is_checked or len(alike) < 2:
            return
        self._is_checked = True
        try:
            together = self._guesses(self.batches.collate(alike))
            alone = [self._guesses(self.batches.collate([sample]))[0] for sample in alike]
        except FATAL:
            raise
        except Exception:  # noqa: BLE001 - a model's code may raise anything; the row's own run reports it
            return
        pairs = zip(together, alone, strict=True)
        difference = max(float((one.loss.nanmean() - other.loss.nanmean()).abs()) for one, other in pairs)
        if difference > tolerance(self.loaded.dtype):
            self.batches.batch_tokens = 1
            self._on_check("samples change each other in a batch, so they run one by one")

    def _answer(self, window: Window[AskedRow]) -> list[Prediction]:
        """The lines of the rows of a window."""
        asked = [
            question
            for _, questions in window.rows
            for group in questions.values()
            if not isinstance(group, RowError)
            for question in group
        ]
        self._check_batching(_samples(asked))
        found = _Found()
        self._guess(asked, found)
        stops = stop_tokens(self.loaded, self.encoder.special_ids, asked)
        self._generate(asked, stops, found)
        records = {record.row: record for record, _ in window.rows}
        return [
            *_failed_rows(window),
            *(self._line(records[question.row], question, stops, found) for question in asked),
        ]

    def _guess(self, questions: Sequence[AskedAnswer], found: _Found) -> None:
        """Run the references, which gives their loss and the beginnings of the answers."""
        askers: dict[int, list[AskedAnswer]] = {}
        for question in questions:
            askers.setdefault(id(question.sample), []).append(question)
        samples = [asking[0].sample for asking in askers.values()]
        for batch in self.batches.plan(samples):
            self._run_references(batch, askers, found)

    def _run_references(
        self, batch: list[EncodedSample], askers: Mapping[int, Sequence[AskedAnswer]], found: _Found
    ) -> None:
        def run(some: list[EncodedSample]) -> None:
            guesses = self._guesses(self.batches.collate(some))
            found.guesses.update(zip(map(id, some), guesses, strict=True))

        def on_failure(sample: EncodedSample, error: RowError) -> None:
            found.failures.update({_place(question): error for question in askers[id(sample)]})

        run_halving(batch, run, on_failure, partial(self._shrink, max(sample.n_tokens for sample in batch)))

    def _guesses(self, batch: EncodedBatch) -> list[TokenGuesses]:
        return guess_tokens(self.loaded.model, batch.inputs, batch.labels)

    def _shrink(self, longest: int, batch: Sequence[object]) -> None:
        self.batches.shrink(len(batch), longest)

    def _generate(self, questions: Sequence[AskedAnswer], stops: frozenset[int], found: _Found) -> None:
        generator = Generator(self.loaded, self.encoder.pad_token_id, stops, self.limit)
        openings = []
        for question in questions:
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

        for batch in plan_generation(openings, self.batches.batch_tokens, self.limit):
            longest = max(opening.n_prompt for opening in batch) + self.limit
            run_halving(batch, run, on_failure, partial(self._shrink, longest))

    def _line(self, record: Record, question: AskedAnswer, stops: frozenset[int], found: _Found) -> Prediction:
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


def _n_bytes(outcomes: AskedRow) -> int:
    asked = (questions for questions in outcomes.values() if not isinstance(questions, RowError))
    return sum(sample.n_bytes for questions in asked for sample in _samples(questions))


def _failed_rows(window: Window[AskedRow]) -> list[Prediction]:
    """A line for each row, as it is and with swapped images, that couldn't be encoded."""
    return [
        _failed(Prediction(**_names(record), swapped_row=lender), error)
        for record, questions in window.rows
        for lender, error in questions.items()
        if isinstance(error, RowError)
    ]


def _failed(line: Prediction, error: RowError) -> Prediction:
    return replace(line, status="failed", reason=error.detail, reason_code=error.code)


def _samples(questions: Iterable[AskedAnswer]) -> list[EncodedSample]:
    """The encoded conversations of the questions, each once."""
    return list({id(question.sample): question.sample for question in questions}.values())


def _place(question: AskedAnswer) -> Place:
    return question.row, question.swapped_row, question.asked.turn


def _names(record: Record) -> dict[str, Any]:
    return {"row": record.row, "id": record.id, "key": record.key, "source": record.source}

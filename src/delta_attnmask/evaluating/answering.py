"""Answer units of rows with one model: run the references once, generate what differs, give every row its lines."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import ReasonCode, RowError, SettingsError
from delta_attnmask.evaluating.asking import Lender, Turns
from delta_attnmask.evaluating.drafting import Answer, TokenGuesses, encode_answers, guess_tokens
from delta_attnmask.evaluating.generating import finish_answers, plan_generation, stop_tokens
from delta_attnmask.evaluating.measures import normalise
from delta_attnmask.evaluating.predictions import Prediction
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.selfcheck import tolerance
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record, form_of
from delta_attnmask.scoring.pipeline import FATAL, Batches, EncodedRows, Item, Unit, Window, run_halving
from delta_attnmask.settings import require_positive

AskedRow = dict[int | None, list[Answer] | RowError]  # by the row whose images are shown instead of its own


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

    def __post_init__(self) -> None:
        require_positive(batch_tokens=self.batch_tokens, max_new_tokens=self.max_new_tokens)
        if self.seed < 0:
            raise SettingsError(f"seed={self.seed}: expected at least 0")


@dataclass
class AnsweredUnit:
    """A unit's lines, and the seconds that they took."""

    index: int = -1
    lines: list[Prediction] = field(default_factory=list)
    seconds: float = 0.0


class AnswerEncoder:
    """Encodes what is asked of a row, with its own images and with those that `lenders` lends it."""

    def __init__(self, encoder: Encoder, dataset: Rows, turns: Turns, lenders: Mapping[int, Lender]) -> None:
        self._encoder, self._dataset, self._turns, self._lenders = encoder, dataset, turns, lenders

    def __call__(self, records: Sequence[Record]) -> list[AskedRow]:
        return [self._ask(record) for record in records]

    def _ask(self, record: Record) -> AskedRow:
        asked: AskedRow = {None: self._encode(record)}
        if (lender := self._lenders.get(record.row)) is not None:
            asked[lender.row] = self._encode(replace(record, images=lender.images))
        return asked

    def _encode(self, record: Record) -> list[Answer] | RowError:
        if record.error is not None:
            return record.error
        try:
            return encode_answers(self._encoder, record, self._dataset.load_images(record.images), self._turns)
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
        self.encoded: EncodedRows[AskedRow] = EncodedRows(encode, _n_bytes, loaded.device, plan.workers, chunk=1)
        self._on_check = on_check
        self._is_checked = False

    def answer(self, units: Iterable[Unit]) -> Iterator[AnsweredUnit]:
        """Answer the units in order; no row is lost, a bad one is kept with its reason."""
        answered = AnsweredUnit()
        for window in self.encoded.windows(units):
            started = time.monotonic()
            answered.index = window.unit
            answered.lines += self._answer(window)
            answered.seconds += time.monotonic() - started
            if window.is_last:
                yield answered
                answered = AnsweredUnit()

    def _answer(self, window: Window[AskedRow]) -> list[Prediction]:
        """The lines of the rows of a window."""
        answers = [answer for _, asked in window.rows for answer in _answers_of(asked)]
        self._check_batching(_samples(answers))
        stops = stop_tokens(self.loaded, self.encoder.special_ids, answers)
        self._run_references(answers)
        self._generate(answers, stops)
        lines = []
        for record, asked in window.rows:
            for swapped_row, found in asked.items():
                line = Prediction(
                    row=record.row, id=record.id, key=record.key, source=record.source, swapped_row=swapped_row
                )
                if isinstance(found, RowError):
                    lines.append(_failed(line, found))
                else:
                    lines += [self._fill(line, answer, stops) for answer in found]
        return lines

    def _check_batching(self, samples: Sequence[EncodedSample]) -> None:
        """Once: continue with batches of one where two samples together have other losses than alone."""
        alike = [sample for sample in samples if sample.inputs.keys() == samples[0].inputs.keys()][:2]
        if self._is_checked or len(alike) < 2:
            return
        self._is_checked = True
        try:
            together, alone = self._guess(alike), [self._guess([sample])[0] for sample in alike]
        except FATAL:
            raise
        except Exception:  # noqa: BLE001 - a model's code may raise anything; the row's own run reports it
            return
        pairs = zip(together, alone, strict=True)
        difference = max(float((one.loss.nanmean() - other.loss.nanmean()).abs()) for one, other in pairs)
        if difference > tolerance(self.loaded.dtype):
            self.batches.batch_tokens = 1
            self._on_check("samples change each other in a batch, so they run one by one")

    def _guess(self, samples: list[EncodedSample]) -> list[TokenGuesses]:
        batch = self.batches.collate(samples)
        return guess_tokens(self.loaded.model, batch.inputs, batch.labels)

    def _run_references(self, answers: Sequence[Answer]) -> None:
        """Find the loss of each reference, and with drafts the beginning of the answer."""
        answers_in: dict[int, list[Answer]] = {}
        for answer in answers:
            answers_in.setdefault(id(answer.sample), []).append(answer)

        def run(samples: list[EncodedSample]) -> None:
            for sample, guesses in zip(samples, self._guess(samples), strict=True):
                for answer in answers_in[id(sample)]:
                    answer.read_loss(guesses)
                    if self.plan.draft:
                        answer.read_draft(guesses, self.limit)

        def on_failure(sample: EncodedSample, error: RowError) -> None:
            for answer in answers_in[id(sample)]:
                answer.error = error

        for batch in self.batches.plan(_samples(answers)):
            self._run(batch, run, on_failure, max(sample.n_tokens for sample in batch))

    def _generate(self, answers: Sequence[Answer], stops: frozenset[int]) -> None:
        """Finish the answers that aren't yet."""

        def run(batch: list[Answer]) -> None:
            finish_answers(self.loaded, self.encoder.pad_token_id, batch, stops, self.limit)

        def on_failure(answer: Answer, error: RowError) -> None:
            answer.error = error

        begun = [answer for answer in answers if not (answer.error or answer.is_finished(stops, self.limit))]
        for batch in plan_generation(begun, self.batches.batch_tokens, self.limit):
            self._run(batch, run, on_failure, max(answer.n_prompt for answer in batch) + self.limit)

    def _run(
        self,
        batch: list[Item],
        run: Callable[[list[Item]], None],
        on_failure: Callable[[Item, RowError], None],
        n_tokens: int,
    ) -> None:
        """Run a batch whose longest item has `n_tokens`, or its halves where it fails."""
        run_halving(batch, run, on_failure, lambda some: self.batches.shrink(len(some), n_tokens))

    def _fill(self, line: Prediction, answer: Answer, stops: frozenset[int]) -> Prediction:
        """The row's line with one answer of it."""
        asked = answer.asked
        line = replace(
            line,
            turn=asked.turn,
            question=asked.question,
            reference=asked.reference,
            n_reference_tokens=answer.n_reference_tokens,
        )
        if answer.error is not None:
            return _failed(line, answer.error)
        if not math.isfinite(answer.loss):
            return _failed(line, RowError(ReasonCode.LOSS_NOT_FINITE, f"the loss is not finite ({answer.loss})"))
        text = self.encoder.decode(answer.tokens).strip()
        return replace(
            line,
            prediction=text,
            exact=text == asked.reference,
            normalised=normalise(text) == normalise(asked.reference),
            same_form=form_of(text) == form_of(asked.reference),
            loss=answer.loss,
            n_new_tokens=len(answer.tokens),
            ended=answer.has_ended(stops),
        )


def _answers_of(asked: AskedRow) -> Iterator[Answer]:
    for answers in asked.values():
        if not isinstance(answers, RowError):
            yield from answers


def _samples(answers: Iterable[Answer]) -> list[EncodedSample]:
    """The encoded conversations of the answers, each once."""
    return list({id(answer.sample): answer.sample for answer in answers}.values())


def _n_bytes(asked: AskedRow) -> int:
    return sum(sample.n_bytes for sample in _samples(_answers_of(asked)))


def _failed(line: Prediction, error: RowError) -> Prediction:
    return replace(line, status="failed", reason=error.detail, reason_code=error.code)

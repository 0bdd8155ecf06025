"""Evaluate a model on a data set into a folder, unit by unit; what is finished is never done again."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from delta_attnmask.encoding.encoder import EncodedSample, Encoder, make_encoder
from delta_attnmask.errors import DeviceError, ReasonCode, RowError, SettingsError, UnsupportedModelError
from delta_attnmask.evaluating.asking import Lender, choose_lenders
from delta_attnmask.evaluating.generating import (
    Answer,
    encode_answers,
    generate_answers,
    plan_generation,
    stop_tokens,
    token_losses,
)
from delta_attnmask.evaluating.measures import normalise
from delta_attnmask.evaluating.predictions import EvaluationFolder, Line
from delta_attnmask.evaluating.summarising import make_report
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.progress import Advance, show_nothing
from delta_attnmask.reading.copies import hash_image
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import ImageRef, Record, form_of
from delta_attnmask.scoring.pipeline import Batches, EncodedRows, Item, Unit, Window, run_halving
from delta_attnmask.scoring.worker import UNIT_ROWS, make_manifest
from delta_attnmask.settings import require_positive

MOST_NEW_TOKENS = 512  # unless the caller asks for more
SPARE_TOKENS = 16  # above the longest reference, so that answers that run on are seen to do so
_TEXTS_AT_ONCE = 1024

AskedRow = list[Answer | Line]  # its answers, or lines that say why they can't be asked for


@dataclass(frozen=True)
class EvaluationPlan:
    """What is asked, and how it is answered.

    image_swap: ask everything again with the images of another row of the source.
    max_new_tokens: of an answer; None takes it from the data's longest.
    workers: processes that encode; None chooses by the device.
    """

    image_swap: bool = True
    max_new_tokens: int | None = None
    seed: int = 0
    batch_tokens: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        require_positive(batch_tokens=self.batch_tokens, max_new_tokens=self.max_new_tokens)
        if self.seed < 0:
            raise SettingsError(f"seed={self.seed}: expected at least 0")


def evaluate_dataset(
    loaded: LoadedModel,
    dataset: Rows,
    out: str | Path,
    plan: EvaluationPlan | None = None,
    *,
    unit_rows: int = UNIT_ROWS,
    command: tuple[str, ...] = (),
    on_progress: Advance = show_nothing,
) -> EvaluationFolder:
    """Answer every row of `dataset` into the folder `out`, or finish what an earlier call began there.

    on_progress is called after each unit. Returns the complete evaluation; its figures are in OUT/evaluation.json.
    Raises UnsupportedModelError where the model can't answer, ArtifactError where `out` belongs to another evaluation
    or is in use, DataError where the file is broken, SettingsError for numbers out of range.
    """
    plan = plan or EvaluationPlan()
    require_positive(unit_rows=unit_rows)
    encoder = make_encoder(loaded)
    limit = plan.max_new_tokens or min(MOST_NEW_TOKENS, _longest_answer(dataset, encoder) + SPARE_TOKENS)
    settings = {
        "image_swap": plan.image_swap,
        "max_new_tokens": limit,
        "max_new_tokens_given": plan.max_new_tokens,
        "seed": plan.seed,
    }
    manifest = make_manifest(loaded, dataset, settings, unit_rows, command)
    if Path(loaded.name).is_dir():
        manifest = replace(manifest, model=str(Path(loaded.name).absolute()))  # where `compare` finds `train.json`
    with EvaluationFolder.start(out, manifest) as folder:
        answerer = _Answerer(loaded, encoder, dataset, plan, limit)
        to_do = [(unit, manifest.rows_of(unit)) for unit in folder.units_to_do()]
        units = (Unit(unit, len(rows), dataset.records(rows.start, rows.stop)) for unit, rows in to_do)
        n_before = manifest.n_rows - sum(len(rows) for _, rows in to_do)
        n_here = n_failed = 0
        try:
            for unit, lines in answerer.answer(units):
                if n_before + n_here == 0:  # not where a resumed evaluation happens to begin at bad rows
                    _require_some_success(lines)
                folder.write_unit(unit, lines)
                n_here += len(manifest.rows_of(unit))
                n_failed += len({line["row"] for line in lines if _has_failed(line) and line["swapped_row"] is None})
                on_progress(n_before + n_here, manifest.n_rows, n_failed, n_before)
        except torch.AcceleratorError as error:
            raise DeviceError(f"the device failed: {error}; rerun the same command to resume") from error
        finally:
            answerer.encoded.close()
        folder.write_json("evaluation.json", make_report(folder), indent=2)
        return folder


def _longest_answer(dataset: Rows, encoder: Encoder) -> int:
    """Tokens of the longest answer of the data."""
    texts = (turn.text for record in dataset for turn in record.turns if turn.role == "assistant")
    groups = iter(lambda: list(islice(texts, _TEXTS_AT_ONCE)), [])
    return max((max(encoder.count_tokens(group)) for group in groups), default=0)


def _require_some_success(lines: Sequence[Line]) -> None:
    """If the model refuses every row of the first unit, the fault is the model's, and the evaluation ends."""
    refused = [line["reason"] for line in lines if line.get("reason_code") == ReasonCode.MODEL_REFUSED]
    if refused and all(map(_has_failed, lines)):
        raise UnsupportedModelError(
            f"no row of the first unit could be answered; {len(refused)} like this: {refused[0]}"
        )


class _Answerer:
    """Answers units of records with one model, each with its own images and with those of another row."""

    def __init__(self, loaded: LoadedModel, encoder: Encoder, dataset: Rows, plan: EvaluationPlan, limit: int) -> None:
        self._loaded, self._encoder, self._dataset, self._limit = loaded, encoder, dataset, limit
        self._batches = Batches(loaded, encoder.pad_token_id, plan.batch_tokens)
        lenders = choose_lenders(dataset, plan.seed) if plan.image_swap else {}
        encode = partial(_ask_rows, encoder, dataset, lenders)
        self.encoded: EncodedRows[AskedRow] = EncodedRows(encode, _n_bytes, loaded.device, plan.workers, chunk=1)

    def answer(self, units: Iterable[Unit]) -> Iterator[tuple[int, list[Line]]]:
        """The number of each unit, in order, with its lines; no row is lost."""
        lines: list[Line] = []
        for window in self.encoded.windows(units):
            lines += self._answer(window)
            if window.is_last:
                yield window.unit, lines
                lines = []

    def _answer(self, window: Window[AskedRow]) -> list[Line]:
        """The lines of the rows of a window."""
        answers = [answer for _, asked in window.rows for answer in _answers_of(asked)]
        self._find_losses(answers)
        stops = stop_tokens(self._loaded, self._encoder.special_ids, answers)
        self._generate([answer for answer in answers if answer.error is None], stops)
        lines: list[Line] = []
        for record, asked in window.rows:
            about = {name: getattr(record, name) for name in ("row", "id", "key", "source")}
            about["image"] = hash_image(self._dataset, record.images[0]) if record.images else ""
            lines += [about | (self._describe(one, stops) if isinstance(one, Answer) else one) for one in asked]
        return lines

    def _find_losses(self, answers: Sequence[Answer]) -> None:
        """Find the loss of each reference; those of one conversation in one forward."""
        answers_in: dict[int, list[Answer]] = {}
        for answer in answers:
            answers_in.setdefault(id(answer.sample), []).append(answer)

        def run(samples: list[EncodedSample]) -> None:
            losses = token_losses(self._loaded.model, self._batches.collate(samples))
            for sample, own in zip(samples, losses, strict=True):
                for answer in answers_in[id(sample)]:
                    answer.read_loss(own)

        for batch in self._batches.plan(_samples(answers)):
            longest = max(sample.n_tokens for sample in batch)
            self._run(batch, run, lambda sample: answers_in[id(sample)], longest)

    def _generate(self, answers: Sequence[Answer], stops: frozenset[int]) -> None:
        def run(batch: list[Answer]) -> None:
            generate_answers(self._loaded, self._encoder.pad_token_id, batch, stops, self._limit)

        for batch in plan_generation(answers, self._batches.batch_tokens, self._limit):
            longest = max(answer.start for answer in batch) + self._limit
            self._run(batch, run, lambda answer: [answer], longest)

    def _run(
        self,
        batch: list[Item],
        run: Callable[[list[Item]], None],
        answers_of: Callable[[Item], list[Answer]],
        longest: int,
    ) -> None:
        """Run a batch whose longest item has so many tokens, or its halves where it fails."""

        def on_failure(item: Item, error: RowError) -> None:
            for answer in answers_of(item):
                answer.error = error

        run_halving(batch, run, on_failure, lambda some: self._batches.shrink(len(some), longest))

    def _describe(self, answer: Answer, stops: frozenset[int]) -> Line:
        """The columns of a line that are about one answer."""
        reference = answer.asked.reference
        line = {
            "swapped_row": answer.swapped_row,
            "turn": answer.asked.turn,
            "question": answer.asked.question,
            "reference": reference,
            "n_reference_tokens": answer.n_reference_tokens,
        }
        if answer.error is None and not math.isfinite(answer.loss):
            answer.error = RowError(ReasonCode.LOSS_NOT_FINITE, f"the loss is not finite ({answer.loss})")
        if answer.error is not None:
            return line | _failure(answer.error)
        text = self._encoder.decode(answer.tokens).strip()
        return line | {
            "prediction": text,
            "exact": text == reference,
            "normalised": normalise(text) == normalise(reference),
            "same_form": form_of(text) == form_of(reference),
            "loss": answer.loss,
            "n_new_tokens": len(answer.tokens),
            "ended": answer.tokens[-1] in stops,
        }


def _ask_rows(
    encoder: Encoder, dataset: Rows, lenders: Mapping[int, Lender], records: Sequence[Record]
) -> list[AskedRow]:
    """Encode what is asked of each row, with its own images and with those that another lends it."""
    rows: list[AskedRow] = []
    for record in records:
        asked: AskedRow = []
        own: Lender | tuple[None, tuple[ImageRef, ...]] = (None, record.images)
        for swapped_row, images in [own, *([lenders[record.row]] if record.row in lenders else [])]:
            try:
                if record.error is not None:
                    raise record.error
                shown = replace(record, images=images)
                asked += encode_answers(encoder, shown, dataset.load_images(images), swapped_row)
            except RowError as error:
                asked.append({"swapped_row": swapped_row, **_failure(error)})
        rows.append(asked)
    return rows


def _answers_of(asked: AskedRow) -> list[Answer]:
    return [one for one in asked if isinstance(one, Answer)]


def _samples(answers: Iterable[Answer]) -> list[EncodedSample]:
    """The encoded conversations of the answers, each once."""
    return list({id(answer.sample): answer.sample for answer in answers}.values())


def _n_bytes(asked: AskedRow) -> int:
    return sum(sample.n_bytes for sample in _samples(_answers_of(asked)))


def _has_failed(line: Line) -> bool:
    return line.get("status") == "failed"


def _failure(error: RowError) -> Line:
    return {"status": "failed", "reason": error.detail, "reason_code": error.code}

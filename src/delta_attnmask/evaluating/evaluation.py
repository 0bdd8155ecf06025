"""Evaluate a model on a data set into a folder, unit by unit; what is finished is never done again."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from delta_attnmask.encoding.encoder import Encoder, make_encoder
from delta_attnmask.errors import DeltaAttnMaskError, ReasonCode, SettingsError, UnsupportedModelError
from delta_attnmask.evaluating.answering import EvaluationPlan, UnitAnswerer
from delta_attnmask.evaluating.asking import Lender, choose_lenders
from delta_attnmask.evaluating.predictions import EvaluationFolder, Prediction
from delta_attnmask.evaluating.summarising import make_report
from delta_attnmask.manifest import Manifest
from delta_attnmask.modeling.load import LoadedModel, model_fingerprint
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record
from delta_attnmask.scoring.jobs import Progress
from delta_attnmask.scoring.pipeline import Unit

UNIT_ROWS = 256
MOST_NEW_TOKENS = 512  # unless the caller asks for more
SPARE_TOKENS = 16  # above the longest reference, so that answers that run on are seen to do so
_TEXTS_AT_ONCE = 1024


def evaluate_dataset(
    loaded: LoadedModel,
    dataset: Rows,
    out: str | Path,
    plan: EvaluationPlan | None = None,
    *,
    unit_rows: int = UNIT_ROWS,
    command: tuple[str, ...] = (),
    on_check: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> EvaluationFolder:
    """Answer every row of `dataset` into the folder `out`, or finish what an earlier call began there.

    on_check is given a line where the model can't run in batches; on_progress is called after each unit.
    Returns the complete evaluation; its figures are in OUT/evaluation.json.
    Raises UnsupportedModelError where the model can't answer, ArtifactError where `out` belongs to another evaluation
    or is in use, DataError where the file is broken, SettingsError for numbers out of range.
    """
    plan = plan or EvaluationPlan()
    _check(plan, unit_rows)
    encoder = make_encoder(loaded)
    limit, lenders = _survey(dataset, encoder, plan)
    manifest = _make_manifest(loaded, dataset, plan, limit, unit_rows, command)
    with EvaluationFolder.start(out, manifest) as folder:
        answerer = UnitAnswerer(loaded, encoder, dataset, plan, limit, lenders, on_check)
        to_do = folder.units_to_do()
        n_before = manifest.n_rows - sum(len(manifest.rows_of(unit)) for unit in to_do)
        n_here = n_failed = 0
        try:
            for answered in answerer.answer(Unit(unit, *_read(dataset, manifest.rows_of(unit))) for unit in to_do):
                if n_before + n_here == 0:  # not where a resumed evaluation happens to begin at bad rows
                    _require_some_success(answered.lines)
                folder.write_unit(answered.index, answered.lines, answered.seconds)
                n_here += len(manifest.rows_of(answered.index))
                failed = (line for line in answered.lines if line.status == "failed" and line.swapped_row is None)
                n_failed += len({line.row for line in failed})
                on_progress(Progress(n_before + n_here, manifest.n_rows, n_here, n_failed))
        except torch.AcceleratorError as error:
            raise DeltaAttnMaskError(f"the device failed: {error}; rerun the same command to resume") from error
        finally:
            answerer.encoded.close()
        folder.write_report(make_report(folder))
        return folder


def _check(plan: EvaluationPlan, unit_rows: int) -> None:
    faults = [
        f"{name}={value!r}: expected at least {least}"
        for name, value, least in (
            ("unit_rows", unit_rows, 1),
            ("batch_tokens", plan.batch_tokens, 1),
            ("max_new_tokens", 1 if plan.max_new_tokens is None else plan.max_new_tokens, 1),
            ("seed", plan.seed, 0),
        )
        if not value >= least
    ]
    if faults:
        raise SettingsError("; ".join(faults))


def _survey(dataset: Rows, encoder: Encoder, plan: EvaluationPlan) -> tuple[int, dict[int, Lender]]:
    """The limit of new tokens, and who lends images to whom; the data is read once."""
    longest = _LongestAnswer(encoder)
    records = dataset if plan.max_new_tokens is not None else longest.watch(dataset)
    lenders = choose_lenders(records, plan.seed)
    limit = plan.max_new_tokens or min(MOST_NEW_TOKENS, longest.n_tokens + SPARE_TOKENS)
    return limit, lenders if plan.image_swap else {}


class _LongestAnswer:
    """Counts the tokens of the answers that pass by, many at once."""

    def __init__(self, encoder: Encoder) -> None:
        self.n_tokens = 0
        self._encoder = encoder
        self._texts: list[str] = []

    def watch(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            self._texts += [turn.text for turn in record.turns if turn.role == "assistant"]
            if len(self._texts) >= _TEXTS_AT_ONCE:
                self._count()
            yield record
        self._count()

    def _count(self) -> None:
        counts = self._encoder.count_tokens(self._texts) if self._texts else []
        self.n_tokens = max([self.n_tokens, *counts])
        self._texts = []


def _make_manifest(
    loaded: LoadedModel,
    dataset: Rows,
    plan: EvaluationPlan,
    limit: int,
    unit_rows: int,
    command: tuple[str, ...],
) -> Manifest:
    return Manifest(
        model=str(Path(loaded.name).absolute()) if Path(loaded.name).is_dir() else loaded.name,  # for `compare`
        model_fingerprint=model_fingerprint(loaded.model),
        settings={
            "turns": plan.turns,
            "image_swap": plan.image_swap,
            "max_new_tokens": limit,
            "max_new_tokens_given": plan.max_new_tokens,
            "seed": plan.seed,
            "dtype": str(loaded.dtype).removeprefix("torch."),
        },
        data=dataset.location,
        images=str(dataset.images_root or ""),
        input=dataset.fingerprint,
        format=dataset.format_name,
        n_rows=dataset.n_rows,
        unit_rows=unit_rows,
        revision=loaded.revision,
        command=command,
    )


def _read(dataset: Rows, rows: range) -> tuple[int, Iterator[Record]]:
    return len(rows), dataset.records(rows.start, rows.stop)


def _require_some_success(lines: list[Prediction]) -> None:
    """If the model refuses every row of the first unit, the fault is the model's, and the evaluation ends."""
    refused = [line.reason for line in lines if line.reason_code == ReasonCode.MODEL_REFUSED]
    if refused and not any(line.status == "ok" for line in lines):
        raise UnsupportedModelError(
            f"no row of the first unit could be answered; {len(refused)} like this: {refused[0]}"
        )

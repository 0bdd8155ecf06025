"""Evaluate a model on a data set into a folder, unit by unit; what is finished is never done again."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from delta_attnmask.encoding.encoder import Encoder, make_encoder
from delta_attnmask.errors import DeviceError, ReasonCode, UnsupportedModelError
from delta_attnmask.evaluating.answering import EvaluationPlan, UnitAnswerer
from delta_attnmask.evaluating.asking import choose_lenders
from delta_attnmask.evaluating.predictions import EvaluationFolder, Prediction
from delta_attnmask.evaluating.summarising import make_report
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import Rows
from delta_attnmask.scoring.jobs import Progress
from delta_attnmask.scoring.pipeline import Unit
from delta_attnmask.scoring.worker import make_manifest
from delta_attnmask.settings import require_positive

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
    require_positive(unit_rows=unit_rows)
    encoder = make_encoder(loaded)
    limit = plan.max_new_tokens or min(MOST_NEW_TOKENS, _longest_answer(dataset, encoder) + SPARE_TOKENS)
    lenders = choose_lenders(dataset, plan.seed) if plan.image_swap else {}
    settings = {
        "turns": plan.turns,
        "image_swap": plan.image_swap,
        "max_new_tokens": limit,
        "max_new_tokens_given": plan.max_new_tokens,
        "seed": plan.seed,
    }
    manifest = make_manifest(loaded, dataset, settings, unit_rows, command)
    if Path(loaded.name).is_dir():
        manifest = replace(manifest, model=str(Path(loaded.name).absolute()))  # where `compare` finds `train.json`
    with EvaluationFolder.start(out, manifest) as folder:
        answerer = UnitAnswerer(loaded, encoder, dataset, plan, limit, lenders, on_check)
        to_do = folder.units_to_do()
        n_before = manifest.n_rows - sum(len(manifest.rows_of(unit)) for unit in to_do)
        n_here = n_failed = 0
        try:
            for answered in answerer.answer(_unit(dataset, unit, manifest.rows_of(unit)) for unit in to_do):
                if n_before + n_here == 0:  # not where a resumed evaluation happens to begin at bad rows
                    _require_some_success(answered.lines)
                folder.write_unit(answered.index, answered.lines, answered.seconds)
                n_here += len(manifest.rows_of(answered.index))
                failed = (line for line in answered.lines if line.status == "failed" and line.swapped_row is None)
                n_failed += len({line.row for line in failed})
                on_progress(Progress(n_before + n_here, manifest.n_rows, n_here, n_failed))
        except torch.AcceleratorError as error:
            raise DeviceError(f"the device failed: {error}; rerun the same command to resume") from error
        finally:
            answerer.encoded.close()
        folder.write_report(make_report(folder))
        return folder


def _longest_answer(dataset: Rows, encoder: Encoder) -> int:
    """Tokens of the longest answer of the data."""
    texts = (turn.text for record in dataset for turn in record.turns if turn.role == "assistant")
    groups = iter(lambda: list(islice(texts, _TEXTS_AT_ONCE)), [])
    return max((max(encoder.count_tokens(group)) for group in groups), default=0)


def _unit(dataset: Rows, index: int, rows: range) -> Unit:
    return Unit(index, len(rows), dataset.records(rows.start, rows.stop))


def _require_some_success(lines: list[Prediction]) -> None:
    """If the model refuses every row of the first unit, the fault is the model's, and the evaluation ends."""
    refused = [line.reason for line in lines if line.reason_code == ReasonCode.MODEL_REFUSED]
    if refused and not any(line.status == "ok" for line in lines):
        raise UnsupportedModelError(
            f"no row of the first unit could be answered; {len(refused)} like this: {refused[0]}"
        )

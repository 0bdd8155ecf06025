"""`delta-attnmask estimate`: how long scoring a data set will take, and whether it will pay."""

import json
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter

from delta_attnmask.auditing.costs import break_even
from delta_attnmask.cli.audit import print_costs
from delta_attnmask.cli.options import ComputeOptions, DataOptions, Json, ModelOptions, TrainingCost, split_names
from delta_attnmask.cli.terminal import print_format, print_table
from delta_attnmask.settings import CALIBRATION_GRID, PRESETS, STANDARD_GRID, require_positive
from delta_attnmask.storage import write_text_atomically

_CALIBRATION_RECORDS = 960  # 240 originals with three copies each
_CALIBRATION_TRIED = 16


def estimate(
    *,
    model: ModelOptions,
    data: DataOptions,
    rows: int = 50,
    also: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    sweep: bool = False,
    cost: TrainingCost = TrainingCost(),
    compute: ComputeOptions = ComputeOptions(),
    json_file: Json = None,
) -> int:
    """Score some rows, write nothing, and say how long the whole file will take, in how much memory, and if it pays.

    Args:
        rows: How many rows to try, from evenly spaced places of the file.
        also: Further scores, as for `score`.
        sweep: With the standard grid of settings.
    """
    require_positive(rows=rows, batch_tokens=compute.batch_tokens, limit=data.limit)
    source = data.open()
    print_format(source)

    from delta_attnmask.scoring.rivals import load_rivals, rival_names
    from delta_attnmask.scoring.trial import try_rows
    from delta_attnmask.scoring.units import ScoringPlan

    rivals, all_rivals = load_rivals(split_names(also) or []), load_rivals(rival_names())
    loaded = model.load().loaded
    options: dict[str, Any] = asdict(compute)
    plan = ScoringPlan(PRESETS["relative"].mask, STANDARD_GRID if sweep else (), rivals, **options)
    trial = try_rows(loaded, source, plan, rows)
    # What `--settings auto` adds: every setting and every rival score, for originals and their planted copies.
    calibrating = try_rows(
        loaded,
        source,
        ScoringPlan(PRESETS["relative"].mask, CALIBRATION_GRID, all_rivals, **options),
        _CALIBRATION_TRIED,
    )
    per_row = trial.seconds_per_row
    calibration_s = calibrating.seconds_per_row * min(_CALIBRATION_RECORDS, 4 * source.n_rows)
    report = {
        "n_tried": trial.n_rows,
        "n_failed": trial.n_failed,
        "n_rows": source.n_rows,
        "device": trial.device,
        "peak_bytes": trial.peak_bytes,
        "calibration_s": round(calibration_s, 1),
        "rows_per_s": round(1 / per_row, 2),
        "scoring_s": round(per_row * source.n_rows, 1),
        **asdict(cost),
        "budgets": break_even(source.n_rows, per_row, fixed_s=calibration_s, **asdict(cost)),
    }
    if json_file is not None:
        write_text_atomically(json_file, json.dumps(report, indent=1) + "\n")
    _print_report(report)
    return 0


def _print_report(report: dict[str, Any]) -> None:
    where = "GPU memory" if report["device"] == "cuda" else "memory"
    overview = {
        "rows": report["n_rows"],
        "tried": report["n_tried"],
        "failed of these": report["n_failed"],
        "scoring": _duration(report["scoring_s"]),
        "calibration before it": _duration(report["calibration_s"]),
        f"{where} at most": f"{report['peak_bytes'] / 1e9:.1f} GB",
    }
    print_table("Estimate", ["what", "value"], list(overview.items()))
    print_costs(report)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"

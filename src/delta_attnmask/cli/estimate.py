"""`delta-attnmask estimate`: how long scoring a data set will take, and whether it will pay."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from delta_attnmask.auditing.run_audit import break_even
from delta_attnmask.cli.audit import print_costs
from delta_attnmask.cli.options import (
    ComputeOptions,
    DataOptions,
    Force,
    Json,
    ModelOptions,
    TrainingCost,
    claim_json,
    split_names,
    write_json,
)
from delta_attnmask.cli.terminal import print_data, print_table
from delta_attnmask.reporting.words import write_seconds
from delta_attnmask.settings import WARM_ROWS, require_positive


def estimate(
    *,
    model: ModelOptions,
    data: DataOptions,
    rows: int = 50,
    rounds: Literal[0, 1, 2] = 0,
    warm_rows: int = WARM_ROWS,
    also: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    sweep: bool = False,
    cost: TrainingCost = TrainingCost(),
    compute: ComputeOptions = ComputeOptions(),
    json_file: Json = None,
    force: Force = False,
) -> None:
    """Score a few rows, write nothing, and print how long all of them take, in how much memory, and whether it pays.

    Args:
        rows: How many rows to try, from evenly spaced places of the file.
        rounds: Include this many rounds of `calibrate`.
        warm_rows: Rows that a copy of the model learns from in a round.
        also: Further scores, as for `score`.
        sweep: Include the standard grid of settings.
    """
    require_positive(rows=rows, batch_tokens=compute.batch_tokens, limit=data.limit)
    source = data.open()
    claim_json(json_file, source.inputs, force=force)
    print_data(source)

    from delta_attnmask.running.estimating import estimate_scoring

    found = estimate_scoring(
        model.load().loaded,
        source,
        asdict(compute),
        also=split_names(also) or (),
        sweep=sweep,
        rounds=rounds,
        warm_rows=warm_rows,
        n_tried=rows,
    )
    trial, calibration_s, rounds_s = found.trial, found.calibration_s, found.rounds_s
    report: dict[str, Any] = {
        "n_tried": trial.n_rows,
        "n_failed": trial.n_failed,
        "n_rows": source.n_rows,
        "device": trial.device,
        "peak_bytes": trial.peak_bytes,
        **break_even(source.n_rows, trial.seconds_per_row, calibration_s + rounds_s, **asdict(cost)),
    }
    write_json(json_file, report)
    overview = {
        "rows": source.n_rows,
        "tried": trial.n_rows,
        "failed of these": trial.n_failed,
        "scoring": write_seconds(report["scoring_s"]),
        "calibration before it": write_seconds(calibration_s),
        **({"rounds of it": write_seconds(rounds_s)} if rounds else {}),
        f"{'GPU ' if trial.device == 'cuda' else ''}memory at most": f"{trial.peak_bytes / 1e9:.1f} GB",
    }
    print_table("Estimate", ["what", "value"], overview.items())
    print_costs(report)

"""`delta-attnmask estimate`: how long scoring a data set will take, and whether it will pay."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from delta_attnmask.auditing.costs import break_even
from delta_attnmask.cli.audit import print_costs, require_rate
from delta_attnmask.cli.tables import print_table
from delta_attnmask.cli.understood import tell_format
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows, Rows
from delta_attnmask.settings import PRESETS, require_positive
from delta_attnmask.storage import write_text_atomically

if TYPE_CHECKING:
    from delta_attnmask.modeling.load import LoadedModel
    from delta_attnmask.settings import AttentionBackend

_CALIBRATION_RECORDS = 960  # 240 originals with three copies each
_CALIBRATION_TRIED = 16


def estimate(
    *,
    model: str,
    data: Annotated[list[Path], Parameter(consume_multiple=True)],
    images: Path | None = None,
    rows: int = 50,
    also: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    sweep: bool = False,
    train_rate: float | None = None,
    epochs: float = 1.0,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    attention: Literal["auto", "plain", "tiled", "fused", "triton"] = "auto",
    batch_tokens: int = 8192,
    limit: int | None = None,
    format: str | None = None,
    allow_outside: bool = False,
    revision: str | None = None,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Score some rows, write nothing, and say how long the whole file will take, in how much memory, and if it pays.

    Parameters
    ----------
    model
        Folder of a Hugging Face model, or its name on the hub.
    data
        Conversations, as for `score`.
    images
        Folder below which the rows' image paths lie.
    rows
        How many rows to try, from evenly spaced places of the file.
    also
        Further scores, as for `score`.
    sweep
        With the standard grid of settings.
    train_rate
        Rows that training gets through in a second; for the break-even.
    epochs
        How many times training sees each row.
    dtype
        auto: bfloat16 on a GPU (float16 on one older than Ampere), float32 on a CPU.
    device
        auto, cpu, cuda, cuda:1, mps, or balanced.
    attention
        Which code sums the attention; auto takes the fastest that the model and the device allow.
    batch_tokens
        Upper bound of rows times longest row in a batch.
    limit
        Only the first rows.
    format
        Name of the data's format (`check --help` lists them); recognised by content if not given.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    revision
        Revision of a model on the hub.
    json_file
        File for the figures as JSON.
    """
    from delta_attnmask.modeling.load import load_model
    from delta_attnmask.scoring.rivals import load_rivals
    from delta_attnmask.scoring.trial import try_rows
    from delta_attnmask.scoring.units import ScoringPlan
    from delta_attnmask.settings import STANDARD_GRID

    require_rate(train_rate)
    require_positive(rows=rows, batch_tokens=batch_tokens, limit=limit)
    rivals = load_rivals([name for text in also or () for name in text.split(",") if name])
    dataset = FileRows(data, images, image_limits=ImageLimits(allow_outside=allow_outside), format=format, limit=limit)
    tell_format(dataset)
    loaded = load_model(model, dtype=dtype, device=device, revision=revision)
    grid = STANDARD_GRID if sweep else ()
    plan = ScoringPlan(PRESETS["relative"].mask, grid, rivals, batch_tokens, attention=attention)
    trial = try_rows(loaded, dataset, plan, rows)
    per_row = trial.seconds_per_row
    calibration_s = _calibration_seconds(loaded, dataset, batch_tokens, attention)
    report = {
        "n_tried": trial.n_rows,
        "n_failed": trial.n_failed,
        "n_rows": dataset.n_rows,
        "device": trial.device,
        "peak_bytes": trial.peak_bytes,
        "calibration_s": round(calibration_s, 1),
        "rows_per_s": round(1 / per_row, 2),
        "scoring_s": round(per_row * dataset.n_rows, 1),
        "train_rate": train_rate,
        "epochs": epochs,
        "budgets": break_even(dataset.n_rows, per_row, fixed_s=calibration_s, train_rate=train_rate, epochs=epochs),
    }
    if json_file is not None:
        write_text_atomically(json_file, json.dumps(report, indent=1) + "\n")
    _print_report(report)
    return 0


def _calibration_seconds(
    loaded: "LoadedModel", dataset: Rows, batch_tokens: int, attention: "AttentionBackend"
) -> float:
    """What `--settings auto` adds: every setting and every rival score, for originals and their planted copies."""
    from delta_attnmask.modeling.anatomy import examine
    from delta_attnmask.scoring.rivals import load_rivals, rival_names
    from delta_attnmask.scoring.trial import try_rows
    from delta_attnmask.scoring.units import ScoringPlan, fit_grid
    from delta_attnmask.settings import CALIBRATION_GRID

    grid = fit_grid(CALIBRATION_GRID, examine(loaded.model))
    plan = ScoringPlan(grid[0], grid, load_rivals(rival_names()), batch_tokens, attention=attention)
    trial = try_rows(loaded, dataset, plan, _CALIBRATION_TRIED)
    return trial.seconds_per_row * min(_CALIBRATION_RECORDS, 4 * dataset.n_rows)


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

"""`delta-attnmask calibrate`: find the setting that suits a model and a data set, without labels."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from delta_attnmask.calibration import refuse_another_calibration
from delta_attnmask.cli.options import ComputeOptions, DataOptions, ModelOptions, Strict, split_names
from delta_attnmask.cli.terminal import SAYS_NO, print_data
from delta_attnmask.errors import SettingsError
from delta_attnmask.settings import WARM_ROWS, RoundsWanted, require_positive


def calibrate(
    *,
    model: ModelOptions,
    data: DataOptions,
    out: Path,
    rows: int = 240,
    also: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    rounds: RoundsWanted = 0,
    warm_rows: int = WARM_ROWS,
    seed: int = 0,
    compute: ComputeOptions = ComputeOptions(),
    strict: Strict = False,
) -> int:
    """Plant defects in copies of a few hundred rows and find the score that ranks them below the originals.

    Needs no labels: the copies are made from the data itself. Also reports what no score can see.

    Args:
        out: Folder for calibration.json, which `score --settings OUT` reads.
        rows: How many originals; each gets three copies, each with a different defect.
        also: Further scores to compare with, as for `score`.
        rounds: How often copies of the model learn from the rows that they trust, each half of the rows scored by the
            copy that learned from the other; auto: as often as the planted copies say it helps, up to 2. Kept in
            OUT/rounds; rerun the same command to resume.
        warm_rows: Rows that a copy learns from, at most.
        seed: Seed of the sample and the defects.
    """
    require_positive(rows=rows, batch_tokens=compute.batch_tokens, limit=data.limit)
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out {out} is a file; expected a folder, created if missing")
    source = data.open()
    print_data(source)
    scorer = model.load()

    from delta_attnmask.calibrating.preset_choice import made_with

    refuse_another_calibration(out, made_with(scorer.loaded, source))
    found = scorer.calibrate(
        source,
        n_rows=rows,
        rounds=rounds,
        warm_rows=warm_rows,
        out=out,
        also=split_names(also) or (),
        **asdict(compute),
        seed=seed,
        progress=True,
    )
    path = found.save(out)
    print(f"Wrote {path}; next: delta-attnmask score --settings {out} ...")
    print(found.describe())
    return SAYS_NO if strict and found.verdict.is_no else 0

"""`delta-attnmask calibrate`: find the setting that suits a model and a data set, without labels."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from delta_attnmask.calibration import refuse_another_calibration
from delta_attnmask.cli.options import ComputeOptions, DataOptions, ModelOptions, split_names
from delta_attnmask.cli.terminal import print_data
from delta_attnmask.errors import SettingsError
from delta_attnmask.settings import require_positive


def calibrate(
    *,
    model: ModelOptions,
    data: DataOptions,
    out: Path,
    rows: int = 240,
    also: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    seed: int = 0,
    compute: ComputeOptions = ComputeOptions(),
) -> None:
    """Plant defects in copies of a few hundred rows and find the score that ranks them below the originals.

    Needs no labels: the copies are made from the data itself. Also reports what no score can see.

    Args:
        out: Folder for calibration.json, which `score --settings OUT` reads.
        rows: How many originals; each gets three copies, each with a different defect.
        also: Further scores to compare with, as for `score`.
        seed: Seed of the sample and the defects.
    """
    require_positive(rows=rows, batch_tokens=compute.batch_tokens, limit=data.limit)
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out {out} is a file; expected a folder, made if missing")
    source = data.open()
    print_data(source)
    scorer = model.load()

    from delta_attnmask.calibrating.preset_choice import made_with

    refuse_another_calibration(out, made_with(scorer.loaded, source))
    found = scorer.calibrate(
        source, n_rows=rows, also=split_names(also) or (), **asdict(compute), seed=seed, progress=True
    )
    path = found.save(out)
    print(found.describe())
    print(f"Wrote {path}; next: delta-attnmask score --settings {out} ...")

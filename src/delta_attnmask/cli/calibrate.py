"""`delta-attnmask calibrate`: find the setting that suits a model and a data set, without labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from delta_attnmask.cli.progress import show_progress
from delta_attnmask.cli.understood import tell_format
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows, Rows
from delta_attnmask.settings import require_positive

if TYPE_CHECKING:
    from delta_attnmask.calibrating.calibrate import Calibration
    from delta_attnmask.modeling.load import LoadedModel
    from delta_attnmask.settings import AttentionBackend

_MAX_SOURCES = 12  # in what is printed; calibration.json has all


def calibrate(
    *,
    model: str,
    data: Annotated[list[Path], Parameter(consume_multiple=True)],
    images: Path | None = None,
    out: Path,
    rows: int = 240,
    also: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    seed: int = 0,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    attention: Literal["auto", "plain", "tiled", "fused", "triton"] = "auto",
    batch_tokens: int = 8192,
    format: str | None = None,
    allow_outside: bool = False,
    revision: str | None = None,
) -> int:
    """Plant defects in copies of some hundred rows and find the setting that ranks them below the originals.

    Needs no labels: the copies are made from the data itself. Says also what no setting can see.

    Parameters
    ----------
    model
        Folder of a Hugging Face model, or its name on the hub.
    data
        Conversations, as for `score`.
    images
        Folder below which the rows' image paths lie.
    out
        Folder for calibration.json, which `score --settings OUT` reads.
    rows
        How many originals; each gets three copies with another defect each.
    also
        Rival scores to compare with; all if not given.
    seed
        Seed of the sample and the defects.
    dtype
        auto: bfloat16 on a GPU (float16 on one older than Ampere), float32 on a CPU.
    device
        auto, cpu, cuda, cuda:1, mps, or balanced.
    attention
        Which code sums the attention; auto takes the fastest that the model and the device allow.
    batch_tokens
        Upper bound of rows times longest row in a batch.
    format
        Name of the data's format (`check --help` lists them); recognised by content if not given.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    revision
        Revision of a model on the hub.
    """
    from delta_attnmask.calibrating.run import refuse_another_calibration, write_calibration
    from delta_attnmask.modeling.load import load_model

    require_positive(rows=rows, batch_tokens=batch_tokens)
    dataset = FileRows(data, images, image_limits=ImageLimits(allow_outside=allow_outside), format=format)
    tell_format(dataset)
    loaded = load_model(model, dtype=dtype, device=device, revision=revision)
    refuse_another_calibration(out, loaded, dataset)
    rivals = None if also is None else [name for text in also for name in text.split(",") if name]
    found = run_calibration(
        loaded, dataset, n_rows=rows, rivals=rivals, batch_tokens=batch_tokens, attention=attention, seed=seed
    )
    path = write_calibration(found, out)
    print(describe(found))
    print(f"Wrote {path}; next: delta-attnmask score --settings {out} ...")
    return 0


def run_calibration(
    loaded: "LoadedModel",
    dataset: Rows,
    *,
    n_rows: int = 240,
    rivals: list[str] | None = None,
    batch_tokens: int = 8192,
    attention: "AttentionBackend" = "auto",
    seed: int = 0,
) -> "Calibration":
    """Calibrate with progress on the terminal."""
    from delta_attnmask.calibrating.run import calibrate_dataset

    with show_progress("calibrating") as advance:
        return calibrate_dataset(
            loaded,
            dataset,
            n_rows=n_rows,
            rivals=rivals,
            batch_tokens=batch_tokens,
            attention=attention,
            seed=seed,
            on_progress=lambda n_done, n_all: advance(n_done, n_all, 0),
        )


def describe(found: "Calibration") -> str:
    """The outcome in a few lines: the choice, each kind of defect, sources, kinship with low loss, warnings."""
    report = found.report
    lines = [
        f"calibrated in {report['seconds']} s on {report['n_originals']} rows and {report['n_planted']} planted copies",
        f"chosen: {found.candidate}",
        "AUROC on the half that it was not chosen on (0.5 is chance), with 95 % interval:",
    ]
    for kind, one in report["kinds"].items():
        chosen = one["chosen"]
        seen = "" if one["is_visible"] else "  not seen by any score"
        lines.append(f"  {kind:22} {chosen['auroc']:.2f} ({chosen['low']:.2f}-{chosen['high']:.2f}){seen}")
    told = [f"{source or '(none)'} {_with_interval(one['together'])}" for source, one in report["sources"].items()]
    if 1 < len(told) <= _MAX_SOURCES:
        lines.append(f"by source, all kinds that are seen: {'; '.join(told)}")
    low = report["low_loss"]
    kinship = "unknown" if low["spearman"] is None else f"{low['spearman']:.2f}"
    lines.append(
        f"against low loss: rank correlation {kinship}; mean AUROC {low['mean_auroc']['chosen']:.3f}, "
        f"low loss {low['mean_auroc']['low_loss']:.3f}, both together {low['mean_auroc']['together']:.3f}"
    )
    lines += [f"WARNING: {warning}" for warning in report["warnings"]]
    return "\n".join(lines)


def _with_interval(found: dict[str, Any]) -> str:
    """An AUROC with its interval, where it has either."""
    auroc = "-" if found["auroc"] is None else f"{found['auroc']:.2f}"
    return auroc if found["low"] is None else f"{auroc} ({found['low']:.2f}-{found['high']:.2f})"

"""`delta-attnmask inspect`: where the model looked in single rows, and what the mask did to their answers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from delta_attnmask.calibration import read_preset
from delta_attnmask.cli.options import NO_MASK_OPTIONS, MaskOptions, mask_of
from delta_attnmask.cli.terminal import printable
from delta_attnmask.errors import SettingsError
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder
from delta_attnmask.settings import MaskSettings

if TYPE_CHECKING:
    from delta_attnmask.inspecting.inspection import RowInspection


def inspect(
    run: Path | None = None,
    /,
    *,
    row: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    ids: Annotated[list[str] | None, Parameter(name="--id", consume_multiple=True)] = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("inspect.html"),
    model: str | None = None,
    data: Path | None = None,
    images: Path | None = None,
    settings: str | None = None,
    mask: MaskOptions = NO_MASK_OPTIONS,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    format: str | None = None,
    allow_outside: bool = False,
    revision: str | None = None,
) -> int:
    """Write a page that shows where the model looked in single rows, and what the mask did to their answers.

    Parameters
    ----------
    run
        Folder that `score` made: its model, data and settings are taken where no option names others.
    row
        Numbers of the rows, from 0, as the scores have them.
    ids
        Ids of rows, as the data has them.
    out
        HTML file to write; it needs no network.
    model
        Folder of a Hugging Face model, or its name on the hub.
    data
        Conversations, as for `score`.
    images
        Folder below which the rows' image paths lie.
    settings
        paper, relative, or a folder that `calibrate` made; if not given, those of the run, or else relative. Single
        options change what this gives.
    dtype
        auto: bfloat16 on a GPU (float16 on one older than Ampere), float32 on a CPU.
    device
        auto, cpu, cuda, cuda:1, mps or balanced.
    format
        Name of the data's format (`check --help` lists them); recognised by content if not given.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    revision
        Revision of a model on the hub; if not given, the run's own.
    """
    if not row and not ids:
        raise SettingsError("no row is named; name rows with --row 3 17, or with --id and their ids")
    MaskSettings(**mask.given)  # wrong values are refused before anything large is imported or loaded
    source = _source_of(run, model, data, images)
    limits = ImageLimits(allow_outside=allow_outside)
    dataset = FileRows(source.data, source.images, image_limits=limits, format=format or source.format)
    rows = [*(row or []), *_rows_of(dataset, ids or [])]

    from delta_attnmask.inspecting.inspection_page import render_inspections
    from delta_attnmask.inspecting.inspector import Inspector
    from delta_attnmask.modeling.load import load_model
    from delta_attnmask.reporting.page import write_page

    loaded = load_model(source.model, dtype=dtype, device=device, revision=revision or source.revision)
    if settings is None and source.settings is not None:
        chosen = replace(source.settings, **mask.given)
    else:
        chosen = replace(read_preset(settings or "relative")[0].mask, **mask.given)
    inspections = Inspector(loaded, dataset, chosen).inspect_rows(rows)
    write_page(out, render_inspections(inspections, model=source.model, data=str(source.data)))
    for inspection in inspections:
        print(_line(inspection))
    print(f"Wrote {out}")
    return 2 if all(inspection.reason for inspection in inspections) else 0


@dataclass(frozen=True)
class _Source:
    """What is inspected. settings, revision: those of the run; None without one."""

    model: str
    data: Path
    images: Path | None
    format: str | None = None
    settings: MaskSettings | None = None
    revision: str | None = None


def _source_of(run: Path | None, model: str | None, data: Path | None, images: Path | None) -> _Source:
    """What the options name, and what the run was made of where they name nothing."""
    if run is None:
        if model is None or data is None:
            raise SettingsError("model and data are needed; give --model and --data, or a run's folder: inspect RUN")
        return _Source(model, data, images)
    manifest = RunFolder.open(run).manifest
    return _Source(
        model=model or manifest.model,
        data=data or Path(manifest.require_data()),
        images=images or (Path(manifest.images) if manifest.images else None),
        format=None if data else manifest.format,
        settings=mask_of(manifest.settings),
        revision=None if model else manifest.revision,
    )


def _rows_of(dataset: FileRows, ids: list[str]) -> list[int]:
    """The numbers of the rows that have one of the ids, in the order of the data."""
    if not ids:
        return []
    found = [(record.id, record.row) for record in dataset if record.id in ids]
    if missing := sorted(set(ids) - {id_ for id_, _ in found}):
        raise SettingsError(f"id={missing[0]!r}: no row of {dataset.path} has this id")
    return [row for _, row in found]


def _line(inspection: "RowInspection") -> str:
    """What a row's inspection found, for the terminal."""
    if inspection.reason:
        return f"row {inspection.row}: can't be inspected: {printable(inspection.reason)}"
    return (
        f"row {inspection.row}: loss {inspection.loss:.3f}, masked {inspection.masked_loss:.3f}, "
        f"delta {inspection.delta:+.3f}; {inspection.n_masked} of {inspection.n_tokens} tokens masked"
    )

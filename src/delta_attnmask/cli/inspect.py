"""`delta-attnmask inspect`: where the model looked in single rows, and what the mask did to their answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from delta_attnmask.cli.options import DeviceOptions, MaskOptions, RunDataOptions
from delta_attnmask.cli.terminal import printable
from delta_attnmask.errors import SettingsError
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder

if TYPE_CHECKING:
    from delta_attnmask.inspecting.inspection import RowInspection


_LACKING = "model and data are needed; give --model and --data, or a run's folder: inspect RUN"


def inspect(
    run: Path | None = None,
    /,
    *,
    row: Annotated[list[int] | None, Parameter(consume_multiple=True)] = None,
    ids: Annotated[list[str] | None, Parameter(name="--id", consume_multiple=True)] = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("inspect.html"),
    model: str | None = None,
    rows: RunDataOptions = RunDataOptions(),
    settings: str | None = None,
    mask: MaskOptions = MaskOptions(),
    loading: DeviceOptions = DeviceOptions(),
    format: str | None = None,
    revision: str | None = None,
) -> int:
    """Write a page that shows where the model looked in single rows, and what the mask did to their answers.

    Without RUN, --model and --data are required.

    Args:
        run: Folder that `score` made: its model, data and settings are used unless options name others.
        row: Numbers of the rows, from 0, as the scores have them.
        ids: Ids of rows, as the data has them.
        out: HTML file to write; it needs no network.
        model: Folder of a Hugging Face model, or its name on the hub; if not given, the run's own.
        settings: paper, relative, or a folder that `calibrate` made; if not given, those of the run, or else relative.
            Single options change what this gives.
        format: Name of the data's format (`check --help` lists them); recognised by content if not given.
        revision: Revision of a model on the hub; if not given, the run's own.
    """
    if not row and not ids:
        raise SettingsError("no row is named; name rows with --row 3 17, or with --id and their ids")
    scored = None if run is None else RunFolder.open(run)
    dataset = _open_data(scored, rows, format)
    if model is None:
        if scored is None:
            raise SettingsError(_LACKING)
        model, revision = scored.manifest.model, revision or scored.manifest.revision
    numbers = [*(row or []), *_rows_of(dataset, ids or [])]
    chosen = mask.choose(settings, scored)

    from delta_attnmask.inspecting.inspection_page import render_inspections
    from delta_attnmask.inspecting.inspector import Inspector
    from delta_attnmask.reporting.page import write_page

    loaded = loading.load_model(model, revision)
    inspections = Inspector(loaded, dataset, chosen).inspect_rows(numbers)
    write_page(out, render_inspections(inspections, model=model, data=dataset.location))
    for inspection in inspections:
        print(_line(inspection))
    print(f"Wrote {out}")
    return 2 if all(inspection.reason for inspection in inspections) else 0


def _open_data(run: RunFolder | None, rows: RunDataOptions, format: str | None) -> FileRows:
    """The data that the options name, or else the run's."""
    if run is None:
        if rows.data is None:
            raise SettingsError(_LACKING)
        return FileRows(rows.data, rows.images, image_limits=rows.limits, format=format)
    known = run.manifest
    return FileRows(
        rows.data or known.require_data(),
        rows.images or known.images or None,
        image_limits=rows.limits,
        format=format or (None if rows.data else known.format),
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

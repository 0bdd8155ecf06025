"""`delta-attnmask inspect`: where the model looked in single rows, and what the mask did to their answers."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from delta_attnmask.cli.options import DeviceOptions, Force, MaskOptions, RunDataOptions
from delta_attnmask.cli.terminal import printable
from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.run_export import open_scored
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reporting.page import claim_page, write_page
from delta_attnmask.runs import RunFolder


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
    force: Force = False,
) -> int:
    """Write a page that shows where the model looked in single rows, and what the mask did to their answers.

    Without RUN, --model and --data are required.

    Args:
        run: Run folder that `score` wrote; its data, model and settings are used unless options name others.
        row: Row numbers, from 0, as in the scores.
        ids: Row ids, as in the data.
        out: HTML file to write; it needs no network.
        model: Folder of a Hugging Face model, or its name on the hub; if not given, the run's own.
        settings: paper, relative, or a folder that `calibrate` made; if not given, those of the run, or else relative.
            Single options change what this gives.
        format: Without RUN: name of the data's format (`check --help` lists them); by default it is recognised
            from the content.
        revision: Revision of a model on the hub; if not given, the run's own.
    """
    if not row and not ids:
        raise SettingsError("no row is named; name rows with --row 3 17, or with --id and their ids")
    scored = None if run is None else RunFolder.open(run)
    if scored is not None:
        dataset = open_scored(scored, rows.place)
        if model is None:
            model, revision = scored.manifest.model, revision or scored.manifest.revision
    elif model is None or rows.data is None:
        raise SettingsError("model and data are needed; give --model and --data, or a run's folder: inspect RUN")
    else:
        dataset = FileRows(rows.data, rows.images, image_limits=rows.place.image_limits, format=format)
    if unknown := [number for number in row or [] if not 0 <= number < dataset.n_rows]:
        raise SettingsError(f"row={unknown[0]}: {dataset.name} has the rows 0 to {dataset.n_rows - 1}")
    found = [(record.id, record.row) for record in dataset if record.id in ids] if ids else []
    if missing := sorted(set(ids or []) - {id_ for id_, _ in found}):
        raise SettingsError(f"id={missing[0]!r}: no row of {dataset.path} has this id")
    claim_page(out, [*dataset.inputs, *(scored.inputs if scored else [])], force=force)
    chosen = mask.choose(settings, scored)

    from delta_attnmask.inspecting.inspection_page import render_inspections
    from delta_attnmask.inspecting.inspector import Inspector

    loaded = loading.load_model(model, revision)
    inspections = Inspector(loaded, dataset, chosen).inspect_rows([*(row or []), *(row for _, row in found)])
    write_page(out, render_inspections(inspections, model=model, data=dataset.location), force=force)
    for one in inspections:
        if one.reason:
            print(f"row {one.row}: can't be inspected: {printable(one.reason)}")
        else:
            losses = f"loss {one.loss:.3f}, masked {one.masked_loss:.3f}, delta {one.delta:+.3f}"
            print(f"row {one.row}: {losses}; {one.n_masked} of {one.n_tokens} tokens masked")
    print(f"Wrote {out}")
    return 2 if all(one.reason for one in inspections) else 0

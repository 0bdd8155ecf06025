"""`delta-attnmask inspect`: where the model looked in single rows, and what the mask did to their answers."""

from collections.abc import Sequence
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
    row: Annotated[list[str], Parameter(consume_multiple=True)],
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
        row: Rows, by their numbers (from 0, as the scores have them) or by their ids. A number that no row has is taken
            for an id.
        out: HTML file to write; it needs no network.
        model: Folder of a Hugging Face model, or its name on the hub; if not given, the run's own.
        settings: paper, relative, or a folder that `calibrate` made; if not given, those of the run, or else relative.
            Single options change what this gives.
        format: Without RUN: name of the data's format (`check --help` lists them); by default it is recognised
            from the content.
        revision: Revision of a model on the hub; if not given, the run's own.
    """
    scored = None if run is None else RunFolder.open(run)
    if scored is not None:
        dataset = open_scored(scored, rows.place)
        if model is None:
            model, revision = scored.manifest.model, revision or scored.manifest.revision
    elif model is None or rows.data is None:
        raise SettingsError("model and data are needed; give --model and --data, or a run's folder: inspect RUN")
    else:
        dataset = FileRows(rows.data, rows.images, image_limits=rows.place.image_limits, format=format)
    wanted = find_rows(dataset, row)
    claim_page(out, [*dataset.inputs, *([scored.path] if scored else [])], force=force)
    chosen = mask.choose(settings, scored)

    from delta_attnmask.inspecting.inspection_page import render_inspections
    from delta_attnmask.inspecting.inspector import Inspector

    loaded = loading.load_model(model, revision)
    inspections = Inspector(loaded, dataset, chosen).inspect_rows(wanted)
    write_page(out, render_inspections(inspections, model=model, data=dataset.location), force=force)
    for one in inspections:
        named = f"row {one.row}{f' ({printable(one.id)})' if one.id else ''}"
        if one.reason:
            print(f"{named}: can't be inspected: {printable(one.reason)}")
        else:
            losses = f"loss {one.loss:.3f}, masked {one.masked_loss:.3f}, delta {one.delta:+.3f}"
            print(f"{named}: {losses}; {one.n_masked} of {one.n_tokens} tokens masked")
    print(f"Wrote {out}")
    return 2 if all(one.reason for one in inspections) else 0


def find_rows(dataset: FileRows, wanted: Sequence[str]) -> list[int]:
    """The rows of some numbers or ids, in the order given; of an id that several rows have, all of them.

    Raises SettingsError for what is neither.
    """
    numbers = {text: [int(text)] for text in wanted if text.isdecimal() and int(text) < dataset.n_rows}
    found: dict[str, list[int]] = {text: [] for text in wanted} | numbers
    if ids := found.keys() - numbers.keys():
        for record in dataset:
            if record.id in ids:
                found[record.id].append(record.row)
    if missing := [text for text, rows in found.items() if not rows]:
        raise SettingsError(
            f"row={missing[0]!r}: {dataset.name} has the rows 0 to {dataset.n_rows - 1}, and none of them has this id"
        )
    return list(dict.fromkeys(row for text in wanted for row in found[text]))

"""`delta-attnmask attention`: where two models' attention goes over the same rows, and what changed."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from delta_attnmask.calibration import read_preset
from delta_attnmask.cli.options import DataOptions, DeviceOptions, Force, Json, claim_json, write_json
from delta_attnmask.cli.terminal import print_table
from delta_attnmask.errors import SettingsError
from delta_attnmask.progress import show_progress
from delta_attnmask.reporting.page import claim_page, write_page


def attention(
    base: str,
    tuned: str,
    /,
    *,
    data: DataOptions,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("attention.html"),
    rows: int = 200,
    samples: int = 6,
    settings: str = "relative",
    json_file: Json = None,
    force: Force = False,
    loading: DeviceOptions = DeviceOptions(),
) -> None:
    """Compare where two models' attention goes over the same rows, and write a page that says what changed.

    Args:
        base: Folder of a Hugging Face model or of a LoRA adapter, or a model's name on the hub.
        tuned: The other model, which the page compares with it.
        out: HTML file to write; it needs no network.
        rows: How many rows to measure, evenly spread over the data.
        samples: How many of them to show side by side.
        settings: paper, relative, or a folder that `calibrate` made: what the mask would hide, and what rows are picked
            by.
    """
    if rows < 2 or samples < 0:
        raise SettingsError(f"rows={rows}, samples={samples}: expected at least 2 rows, and no negative number")
    dataset = data.open()
    claim_page(out, dataset.inputs, force=force)
    claim_json(json_file, dataset.inputs, force=force)

    from delta_attnmask.inspecting.comparison import compare, spread_rows
    from delta_attnmask.inspecting.comparison_page import COLUMNS, render_comparison, rows_of
    from delta_attnmask.inspecting.inspector import Inspector

    wanted = spread_rows(dataset.n_rows, rows)
    preset, _ = read_preset(settings)
    measured, inspected = [], []
    for name in (base, tuned):
        inspector = Inspector(loading.load_model(name), dataset, preset.mask)
        with show_progress(inspector.loaded.name) as advance:
            measured.append(inspector.measure_rows(wanted, advance))
        with_images = [row for row, found in measured[0].items() if found.has_image]
        shown = [with_images[position] for position in spread_rows(len(with_images), samples)]
        inspected.append(inspector.inspect_rows(shown))
        del inspector  # two large models don't fit side by side
    comparison = compare(measured[0], measured[1], preset.form)
    html = render_comparison(
        comparison,
        [pair for pair in zip(*inspected, strict=True) if not any(row.reason for row in pair)],
        base=base,
        tuned=tuned,
        n_measured=len(wanted),
        settings=preset.mask,
        data=dataset.location,
    )
    write_page(out, html, force=force)
    write_json(json_file, {"base": base, "tuned": tuned} | asdict(comparison))
    print_table(f"{comparison.n_rows} rows", COLUMNS, rows_of(comparison))
    print(f"Wrote {out}", file=sys.stderr)

"""`delta-attnmask attention`: where two models' attention goes over the same rows, and what changed."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from delta_attnmask.calibration import read_preset
from delta_attnmask.cli.options import DataOptions, DeviceOptions
from delta_attnmask.cli.terminal import print_table
from delta_attnmask.errors import SettingsError
from delta_attnmask.progress import show_progress
from delta_attnmask.reading.rows import Rows
from delta_attnmask.settings import MaskSettings

if TYPE_CHECKING:
    from delta_attnmask.inspecting.comparison import ModelAttention
    from delta_attnmask.modeling.load import LoadedModel


def attention(
    *,
    model: Annotated[list[str], Parameter(consume_multiple=True)],
    data: DataOptions,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("attention.html"),
    rows: int = 200,
    samples: int = 6,
    settings: str = "relative",
    json_: Annotated[bool, Parameter(name="--json")] = False,
    loading: DeviceOptions = DeviceOptions(),
) -> int:
    """Compare where two models' attention goes over the same rows, and write a page that says what changed.

    Args:
        model: Two: the base model first, then the tuned one. Folders, or names on the hub.
        out: HTML file to write; it needs no network.
        rows: How many rows to measure, evenly spread over the data.
        samples: How many of them to show side by side.
        settings: paper, relative, or a folder that `calibrate` made: what the mask would hide, and what rows are picked
            by.
        json_: Print the figures as JSON too.
    """
    if len(model) != 2:
        raise SettingsError(f"model: got {len(model)}, expected two: --model BASE TUNED")
    if rows < 2 or samples < 0:
        raise SettingsError(f"rows={rows}, samples={samples}: expected at least 2 rows, and no negative number")
    dataset = data.open()

    from delta_attnmask.inspecting.comparison import compare
    from delta_attnmask.inspecting.comparison_page import COLUMNS, render_comparison, rows_of
    from delta_attnmask.inspecting.inspector import Inspector
    from delta_attnmask.inspecting.measuring import spread_rows
    from delta_attnmask.reporting.page import write_page

    wanted = spread_rows(dataset.n_rows, rows)
    loaded = loading.load_model(model[0])
    preset, _ = read_preset(settings)
    base = _measure(loaded, dataset, wanted, preset.mask)
    with_images = base.rows_with_images
    shown = [with_images[position] for position in spread_rows(len(with_images), samples)]
    before = Inspector(loaded, dataset, preset.mask).inspect_rows(shown)
    del loaded  # two large models don't fit side by side
    loaded = loading.load_model(model[1])
    tuned = _measure(loaded, dataset, wanted, preset.mask)
    after = Inspector(loaded, dataset, preset.mask).inspect_rows(shown)
    comparison = compare(base, tuned, preset.form)
    pairs = [pair for pair in zip(before, after, strict=True) if not any(row.reason for row in pair)]
    html = render_comparison(comparison, pairs, settings=preset.mask, data=dataset.location)
    write_page(out, html)
    if json_:
        print(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False))
    else:
        print_table(f"{comparison.n_rows} rows", COLUMNS, rows_of(comparison))
    print(f"Wrote {out}", file=sys.stderr)
    return 0


def _measure(loaded: "LoadedModel", dataset: Rows, rows: list[int], mask: MaskSettings) -> "ModelAttention":
    from delta_attnmask.inspecting.measuring import measure_attention

    with show_progress(loaded.name) as advance:
        return measure_attention(loaded, dataset, rows, mask, lambda n_done: advance(n_done, len(rows), 0))

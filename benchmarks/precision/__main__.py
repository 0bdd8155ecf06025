"""Scores in half precision against float32, on the same rows and the same model.

python -m benchmarks.precision                                     (the embedded model and data, on the CPU)
python -m benchmarks.precision --model DIR --data FILE --images DIR --device cuda --dtypes bfloat16,float16
"""

import argparse
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from delta_attnmask.embedded import export
from delta_attnmask.modeling.load import load_model
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.pipeline import Unit
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from delta_attnmask.settings import Dtype, MaskSettings
from delta_attnmask.statistics import spearman

SETTINGS = {
    "queries=all tokens=all": MaskSettings.paper(),
    "queries=answer tokens=all block=-4": MaskSettings(queries="answer", block=-4),
    "queries=answer tokens=prompt fraction=0.4": MaskSettings(
        queries="answer", tokens="prompt", fraction=0.4, block=-2
    ),
}
TOP = 0.2
UNIT_ROWS = 256
Columns = dict[str, NDArray[np.float64]]


def main() -> None:
    options = _options()
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{options.device}, {options.model or 'embedded model'}, {options.rows} rows"
    )
    with tempfile.TemporaryDirectory() as folder:
        home = export(folder) if options.model is None else Path(folder)
        model, data, images = options.model or home / "model", options.data or home / "pool.json", options.images
        dataset = FileRows(data, images or home / "images", limit=options.rows)
        exact = scores(str(model), dataset, "float32", options.device)
        print("| precision | settings | score | Spearman | top 20 % shared | largest difference |")
        print("| --- | --- | --- | ---: | ---: | ---: |")
        for dtype in options.dtypes.split(","):
            rounded = scores(str(model), dataset, dtype, options.device)
            for name, columns in exact.items():
                for line in compared(columns, rounded[name]):
                    print(f"| {dtype} | {name} | {line} |", flush=True)


def scores(model: str, dataset: FileRows, dtype: str, device: str) -> dict[str, Columns]:
    """Loss, masked loss and delta of every row, NaN where it failed, under each of the settings."""
    loaded = load_model(model, dtype=cast("Dtype", dtype), device=device)
    names = list(SETTINGS)
    plan = ScoringPlan(SETTINGS[names[0]], tuple(SETTINGS[name] for name in names[1:]))
    scorer = UnitScorer(loaded, dataset.load_image, plan)
    losses: list[float] = []
    masked: dict[str, list[float]] = {name: [] for name in names}
    units = [range(start, min(start + UNIT_ROWS, dataset.n_rows)) for start in range(0, dataset.n_rows, UNIT_ROWS)]
    for unit in scorer.score(Unit(rows[0], len(rows), dataset.records(rows.start, rows.stop)) for rows in units):
        for score in unit.scores:
            losses.append(_number(score.loss))
            swept = unit.sweep.get(score.row, [float("nan")] * len(plan.sweep))
            for name, value in zip(names, [_number(score.masked_loss), *swept], strict=True):
                masked[name].append(value)
    loss = np.array(losses)
    return {
        name: {"loss": loss, "masked_loss": np.array(values), "delta": np.array(values) - loss}
        for name, values in masked.items()
    }


def compared(exact: Columns, rounded: Columns) -> Iterator[str]:
    """One line a score; the largest delta relative to the loss is a score too."""
    for columns in (exact, rounded):
        columns["relative_delta"] = columns["delta"] / columns["loss"]
    for name in ("loss", "delta", "relative_delta"):
        is_scored = np.isfinite(exact[name]) & np.isfinite(rounded[name])
        one, other = exact[name][is_scored], rounded[name][is_scored]
        difference = np.abs(one - other).max()
        yield f"{name} | {spearman(one, other):.4f} | {top_shared(one, other):.1%} | {difference:.4f}"


def top_shared(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Which share of the rows in the top of one is in the top of the other."""
    n_top = max(1, round(TOP * len(one)))
    tops = [set(np.argsort(-values, kind="stable")[:n_top].tolist()) for values in (one, other)]
    return len(tops[0] & tops[1]) / n_top


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", help="a model's folder; the embedded one if not given")
    parser.add_argument("--data", help="the data that goes with --model")
    parser.add_argument("--images", help="the images that go with --data")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", default="bfloat16")
    parser.add_argument("--rows", type=int, default=1000)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What a sweep costs: 24 settings against one, by the depth of the tail. `python -m benchmarks.sweep`.

Batches of the embedded data with the embedded model, encoded beforehand; each figure is the best of some repeats,
taken in turn.
"""

import argparse
import platform
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers

from delta_attnmask.embedded import export
from delta_attnmask.encoding.collate import collate, plan_batches
from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import load_model
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.delta import sweep_batch
from delta_attnmask.settings import STANDARD_GRID, MaskSettings, calibration_grid


def grid_at(block: int) -> list[MaskSettings]:
    """24 settings whose tail is the blocks behind `block`."""
    choices = product(("all", "answer"), ("all", "prompt"), (0.1, 0.2, 0.4), ("zero", "mean"))
    return [
        MaskSettings(queries=queries, tokens=tokens, fraction=fraction, replacement=replacement, block=block)  # type: ignore[arg-type]
        for queries, tokens, fraction, replacement in choices
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with TemporaryDirectory() as folder:
        home = export(Path(folder))
        loaded = load_model(str(home / "model"))
        dataset = FileRows(home / "pool.json", home / "images", limit=options.rows)
        encoder = make_encoder(loaded)
        samples = [encoder.encode(record, [dataset.load_image(i) for i in record.images]) for record in dataset]
    batches = [collate(group, encoder.pad_token_id) for group in plan_batches(samples, 8192)]

    def sweep(grid: list[MaskSettings]) -> Callable[[], None]:
        def run() -> None:
            for batch in batches:
                sweep_batch(loaded.model, batch.inputs, batch.labels, grid)

        return run

    calibrating = list(calibration_grid(examine(loaded.model).n_blocks))
    cases = {
        "one setting, block -2": sweep([MaskSettings.paper()]),
        **{f"24 settings, block {block} (tail of {-1 - block})": sweep(grid_at(block)) for block in (-2, -3, -4, -5)},
        f"standard grid, {len(STANDARD_GRID)} settings, blocks -2 and -4": sweep(list(STANDARD_GRID)),
        f"calibration grid, {len(calibrating)} settings at three depths": sweep(calibrating),
    }
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(options.repeats):
        for name, run in cases.items():
            started = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - started)
    print(
        f"{options.rows} rows, {options.threads} thread(s), {platform.processor() or platform.machine()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}\n"
    )
    print("| | ms a row | ratio to one setting |\n|---|---|---|")
    for name, seconds in best.items():
        print(f"| {name} | {1000 * seconds / options.rows:.1f} | {seconds / best['one setting, block -2']:.2f} |")


if __name__ == "__main__":
    main()

"""`score` from file to file on the embedded model and data, beside plain forwards over the same batches.

python -m benchmarks.scoring.embedded --rows 1000
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.scoring.report import machine
from benchmarks.scoring.runs import plain_forward, plain_loss
from delta_attnmask.embedded import export
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import load_model
from delta_attnmask.modeling.sharing import image_cost
from delta_attnmask.reading.collate import plan_batches
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.scoring.delta import score_batch
from delta_attnmask.scoring.run import UNIT_ROWS, make_scorer, score_dataset
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.settings import MaskSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--elapsed", action="store_true", help="the clock's seconds, on a machine that does nothing else"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.elapsed else time.process_time
    kind = "elapsed" if options.elapsed else "processor"
    print(f"{machine(torch.device('cpu'))}, {options.rows} rows; {kind} seconds, median of {options.repeats}")
    with tempfile.TemporaryDirectory() as folder:
        for line in report(Path(folder), options.rows, options.repeats, clock):
            print(line)


def report(folder: Path, n_rows: int, n_repeats: int, clock: Callable[[], float]) -> list[str]:
    home = export(folder / "home")
    loaded = load_model(str(home / "model"), dtype="float32", device="cpu")
    dataset = Dataset(home / "pool.json", home / "images", limit=n_rows)
    plan = ScoringPlan(MaskSettings())
    scorer = make_scorer(loaded, dataset, plan)
    units = [
        scorer.prepare(index, dataset.records(start, min(start + UNIT_ROWS, n_rows)))
        for index, start in enumerate(range(0, n_rows, UNIT_ROWS))
    ]
    cost = image_cost(examine(loaded.model))
    planned = [samples for unit in units for samples in plan_batches(unit.samples, plan.batch_tokens, cost)]
    collated = [scorer.collate(samples) for samples in planned]
    batches = [(dict(batch.inputs), batch.labels) for batch in collated]
    n_tokens = sum(sample.n_tokens for samples in planned for sample in samples)
    padding = 1 - n_tokens / sum(labels.numel() for _, labels in batches)

    def each(function: Callable[..., Any], *arguments: Any) -> None:
        for batch in batches:
            function(*arguments, batch)

    runs = iter(range(1000))
    seconds = {
        "plain forward, one logit": lambda: each(plain_forward, loaded.model),
        "plain forward + loss": lambda: each(plain_loss, loaded.model),
        "score_batch": lambda: each(lambda batch: score_batch(loaded.model, *batch)),
        "score, file to file": lambda: score_dataset(loaded, dataset, folder / f"run{next(runs)}", plan),
    }
    medians = _medians(seconds, n_repeats, clock)
    plain, batch_s, whole = (
        medians[name] for name in ("plain forward, one logit", "score_batch", "score, file to file")
    )
    return [
        "| what | s | to plain | ms a row |",
        "| --- | ---: | ---: | ---: |",
        *(f"| {name} | {s:.2f} | {s / plain:.2f} | {s / n_rows * 1e3:.2f} |" for name, s in medians.items()),
        f"| of it outside the model | {whole - batch_s:.2f} | | {(whole - batch_s) / n_rows * 1e3:.2f} |",
        f"\n{len(batches)} batches, {padding:.1%} padding",
    ]


def _medians(calls: dict[str, Callable[[], Any]], n_repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of the clock; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(n_repeats + 1):
        for name, call in calls.items():
            begin = clock()
            call()
            if round_:  # the first warms up
                times[name].append(clock() - begin)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


if __name__ == "__main__":
    main()

"""`score` from file to file on the embedded model and data, beside plain forwards over the same batches.

The command tells the C library to keep the memory that it frees (delta_attnmask.executing.process), which makes any
forward faster. So plain forwards are timed twice: in a process of their own as anybody's would run, and in that one.

python -m benchmarks.scoring.embedded --rows 1000
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.scoring.report import machine
from benchmarks.scoring.runs import plain_forward, plain_loss
from delta_attnmask.embedded import export
from delta_attnmask.encoding.collate import plan_batches
from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.encoding.row_encoder import EncodedRow
from delta_attnmask.errors import RowError
from delta_attnmask.executing.process import keep_freed_memory
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel, load_model
from delta_attnmask.modeling.vision import image_cost
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.delta import score_batch
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer
from delta_attnmask.scoring.worker import UNIT_ROWS
from delta_attnmask.settings import MaskSettings

ORDINARY = "plain forward, an ordinary process"
PLAIN = "plain forward"
BATCH = "score_batch"
WHOLE = "score, file to file"
CLOCKS = {"elapsed": time.perf_counter, "processor": time.process_time}

_plain: Callable[[], float]  # in the ordinary process


@dataclass(frozen=True)
class Bench:
    """What is timed over: the embedded model and data, and the batches that scoring makes of them."""

    loaded: LoadedModel
    dataset: FileRows
    plan: ScoringPlan
    batches: list[tuple[dict[str, Tensor], Tensor]]
    padding: float

    def each(self, function: Callable[..., Any], *arguments: Any) -> None:
        for batch in self.batches:
            function(*arguments, batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--elapsed", action="store_true", help="the clock's seconds, on a machine that does nothing else"
    )
    options = parser.parse_args()
    clock = "elapsed" if options.elapsed else "processor"
    print(f"{machine(torch.device('cpu'))}, {options.rows} rows; {clock} seconds, median of {options.repeats}")
    with tempfile.TemporaryDirectory() as folder:
        for line in report(Path(folder), options.rows, options.threads, options.repeats, clock):
            print(line)


def report(folder: Path, n_rows: int, n_threads: int, n_repeats: int, clock: str) -> list[str]:
    home = export(folder / "home")
    keep_freed_memory()  # as the command does
    bench = _make_bench(home, n_rows, n_threads)
    runs = iter(range(1000))
    calls = {
        PLAIN: lambda: bench.each(plain_forward, bench.loaded.model),
        "plain forward + loss": lambda: bench.each(plain_loss, bench.loaded.model),
        BATCH: lambda: bench.each(lambda batch: score_batch(bench.loaded.model, *batch, MaskSettings.paper())),
        WHOLE: lambda: score_dataset(bench.loaded, bench.dataset, folder / f"run{next(runs)}", bench.plan),
    }
    here = {name: _timed(call, clock) for name, call in calls.items()}
    with ProcessPoolExecutor(1, get_context("spawn"), _set_up, (home, n_rows, n_threads, clock)) as ordinary:
        seconds = _medians({ORDINARY: lambda: ordinary.submit(_time_plain).result(), **here}, n_repeats)
    outside = seconds[WHOLE] - seconds[BATCH]
    return [
        f"| what | s | to {ORDINARY} | to {PLAIN} | ms a row |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {s:.2f} | {s / seconds[ORDINARY]:.2f} | {s / seconds[PLAIN]:.2f} | {s / n_rows * 1e3:.2f} |"
            for name, s in seconds.items()
        ),
        f"| of it outside the model | {outside:.2f} | | | {outside / n_rows * 1e3:.2f} |",
        f"\n{len(bench.batches)} batches, {bench.padding:.1%} padding",
    ]


def _make_bench(home: Path, n_rows: int, n_threads: int) -> Bench:
    torch.set_num_threads(n_threads)
    loaded = load_model(str(home / "model"), dtype="float32", device="cpu")
    dataset = FileRows(home / "pool.json", home / "images", limit=n_rows)
    plan = ScoringPlan(MaskSettings.paper())
    scorer = UnitScorer(loaded, dataset.load_image, plan)
    starts = range(0, n_rows, UNIT_ROWS)
    units = [scorer.encode(list(dataset.records(start, min(start + UNIT_ROWS, n_rows)))) for start in starts]
    cost = image_cost(examine(loaded.model))
    planned = [samples for unit in units for samples in plan_batches(_samples(unit), plan.batch_tokens, cost)]
    collated = [scorer.batches.collate(samples) for samples in planned]
    batches = [(dict(batch.inputs), batch.labels) for batch in collated]
    n_tokens = sum(sample.n_tokens for samples in planned for sample in samples)
    padding = 1 - n_tokens / sum(labels.numel() for _, labels in batches)
    return Bench(loaded, dataset, plan, batches, padding)


def _samples(encoded: Sequence[EncodedRow | RowError]) -> list[EncodedSample]:
    return [row[""] for row in encoded if not isinstance(row, RowError)]


def _set_up(home: Path, n_rows: int, n_threads: int, clock: str) -> None:
    global _plain
    bench = _make_bench(home, n_rows, n_threads)
    _plain = _timed(lambda: bench.each(plain_forward, bench.loaded.model), clock)


def _time_plain() -> float:
    return _plain()


def _timed(call: Callable[[], object], clock: str) -> Callable[[], float]:
    def timed() -> float:
        begin = CLOCKS[clock]()
        call()
        return CLOCKS[clock]() - begin

    return timed


def _medians(calls: dict[str, Callable[[], float]], n_repeats: int) -> dict[str, float]:
    """Seconds of each call; the calls take turns, and the first round warms up."""
    rounds = [{name: call() for name, call in calls.items()} for _ in range(n_repeats + 1)]
    return {name: statistics.median(round_[name] for round_ in rounds[1:]) for name in calls}


if __name__ == "__main__":
    main()

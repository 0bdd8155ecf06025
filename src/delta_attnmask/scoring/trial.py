"""Score a few rows of a data set and write nothing: how fast this model is on this machine, and in what memory."""

import resource
import sys
import time
from dataclasses import dataclass
from itertools import chain

import torch

from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.records import Record
from delta_attnmask.scoring.setup import make_scorer
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer

_WINDOWS = 10  # places in the file that the rows come from
_WARM_UP = 4  # rows that are scored before the clock starts


@dataclass(frozen=True)
class Trial:
    """How a few rows went.

    prepare_s, compute_s: for all of them; a run does both side by side. peak_bytes: of the process, or of all GPUs.
    """

    n_rows: int
    n_failed: int
    prepare_s: float
    compute_s: float
    peak_bytes: int
    device: str

    @property
    def seconds_per_row(self) -> float:
        """A GPU computes while the CPU prepares the next unit; on a CPU they share the cores."""
        both = (self.prepare_s, self.compute_s)
        return (sum(both) if self.device == "cpu" else max(both)) / self.n_rows


def try_rows(loaded: LoadedModel, dataset: Dataset, plan: ScoringPlan, n_rows: int) -> Trial:
    """Time `n_rows` rows from evenly spaced places of the file, after a warm-up that the clock doesn't see."""
    scorer = make_scorer(loaded, dataset, plan)
    records = spaced_records(dataset, n_rows)
    warm_up = scorer.prepare(0, records[:_WARM_UP])
    scorer.self_check(warm_up)
    scorer.compute(warm_up)
    if loaded.device.type == "cuda":
        for idx in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(idx)
    started = time.perf_counter()
    unit = scorer.prepare(0, records)
    prepared = time.perf_counter()
    scored = scorer.compute(unit)
    computed = time.perf_counter()
    return Trial(
        n_rows=len(records),
        n_failed=sum(score.status == "failed" for score in scored.scores),
        prepare_s=prepared - started,
        compute_s=computed - prepared,
        peak_bytes=_peak_bytes(scorer),
        device=loaded.device.type,
    )


def spaced_records(dataset: Dataset, n_rows: int, max_windows: int = _WINDOWS) -> list[Record]:
    """Up to `n_rows` records from evenly spaced places of the data, in their order; all if there are no more."""
    n_rows = min(n_rows, dataset.n_rows)
    width = -(-n_rows // max_windows)
    n_windows = -(-n_rows // width)
    starts = [idx * (dataset.n_rows - width) // max(1, n_windows - 1) for idx in range(n_windows)]
    windows = (dataset.records(start, start + width) for start in starts)
    return list({record.row: record for record in chain.from_iterable(windows)}.values())[:n_rows]


def _peak_bytes(scorer: UnitScorer) -> int:
    device = scorer.loaded.device
    if device.type == "cuda":
        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

"""Score a few rows of a data set and write nothing: whether that works, how fast it is, and in what memory."""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from delta_attnmask.errors import REFUSED_BY_MODEL, DataError, ReasonCode, UnsupportedModelError
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.faults import commonest, count_faults, describe_faults
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer

_WINDOWS = 10  # places in the file that the rows come from
_WARM_UP = 4  # rows that are scored before the clock starts
_N_OTHERS = 256  # rows that are tried before a run is given up
_AT_ONCE = 16


@dataclass(frozen=True)
class Trial:
    """How a few rows went. peak_bytes: of the process, or of all GPUs."""

    n_rows: int
    n_failed: int
    seconds: float
    peak_bytes: int
    device: str

    @property
    def seconds_per_row(self) -> float:
        return self.seconds / self.n_rows


def try_rows(loaded: LoadedModel, rows: Rows, plan: ScoringPlan, n_rows: int) -> Trial:
    """Time `n_rows` rows from evenly spaced places of the data, after a warm-up that the clock doesn't see."""
    scorer = UnitScorer(loaded, rows.load_image, plan)
    records = spaced_records(rows, n_rows)
    scorer.score_records(records[:_WARM_UP])
    if loaded.device.type == "cuda":
        for idx in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(idx)
    started = time.perf_counter()
    scores = scorer.score_records(records)
    seconds = time.perf_counter() - started
    scorer.close()
    n_failed = sum(score.status == "failed" for score in scores)
    return Trial(len(records), n_failed, seconds, _peak_bytes(loaded.device), loaded.device.type)


def spaced_records(rows: Rows, n_rows: int, max_windows: int = _WINDOWS) -> list[Record]:
    """Up to `n_rows` records from evenly spaced places of the data, in their order; all if there are no more."""
    n_rows = min(n_rows, rows.n_rows)
    width = -(-n_rows // max_windows)
    n_windows = -(-n_rows // width)
    starts = [idx * (rows.n_rows - width) // max(1, n_windows - 1) for idx in range(n_windows)]
    windows = (rows.records(start, start + width) for start in starts)
    return list({record.row: record for record in chain.from_iterable(windows)}.values())[:n_rows]


def refuse_hopeless(what: str, scores: Sequence[SampleScore], scorer: UnitScorer, rows: Rows) -> None:
    """Raise where none of these rows has a score and none from all over the data can get one; name the reasons.

    what: which rows they are, in words. Rows from all over the data are tried, since a resumed run may begin at a few
    bad ones. Raises UnsupportedModelError where the model refuses most of the first rows, else DataError; that also
    where most of them lack an image folder, which is a choice forgotten, so that no others are tried.
    """
    faults = count_faults((score.row, score.reason_code, score.reason) for score in scores if score.status == "failed")
    n_lost = sum(fault.n_rows for fault in faults.values() if fault.code == ReasonCode.NO_IMAGE_FOLDER)
    is_forgotten = 2 * n_lost > len(scores)
    if not is_forgotten and any(score.status == "ok" for score in scores):
        return
    others = [] if is_forgotten or len(scores) >= rows.n_rows else spaced_records(rows, _N_OTHERS, _N_OTHERS)
    for start in range(0, len(others), _AT_ONCE):
        if any(score.status == "ok" for score in scorer.score_records(others[start : start + _AT_ONCE])):
            return
    whose = f"most rows of {what} can't" if is_forgotten else f"no row of {what} could"
    nor = f", nor any of {len(others)} from all over the data" if others else ""
    kind = UnsupportedModelError if commonest(faults)[0].code in REFUSED_BY_MODEL else DataError
    raise kind(f"{whose} be scored{nor}; {describe_faults(faults)}")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

"""Whether a run can come to anything: asked where the first rows that were tried all failed."""

from collections.abc import Sequence

from delta_attnmask.errors import REFUSED_BY_MODEL, DataError, ReasonCode, UnsupportedModelError
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.faults import commonest, count_faults, describe_faults
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore
from delta_attnmask.scoring.trial import spaced_records
from delta_attnmask.scoring.units import UnitScorer

_N_OTHERS = 256
_AT_ONCE = 16


def refuse_hopeless(what: str, scores: Sequence[SampleScore], scorer: UnitScorer, dataset: Dataset) -> None:
    """Raise where none of these rows has a score and none from all over the data can get one; name the reasons.

    what: which rows they are, in words. Rows from all over the data are tried, since a run that goes on may begin at a
    few bad ones. Raises UnsupportedModelError where the model refuses most of the first rows, else DataError; that also
    where most of them lack an image folder, which is a choice forgotten, so that no others are tried.
    """
    faults = count_faults((score.row, score.reason_code, score.reason) for score in scores if score.status == "failed")
    n_lost = sum(fault.n_rows for fault in faults.values() if fault.code == ReasonCode.NO_IMAGE_FOLDER)
    is_forgotten = 2 * n_lost > len(scores)
    if not is_forgotten and any(score.status == "ok" for score in scores):
        return
    others = [] if is_forgotten or len(scores) >= dataset.n_rows else spaced_records(dataset, _N_OTHERS, _N_OTHERS)
    if _has_usable(others, scorer):
        return
    whose = f"most rows of {what} can't" if is_forgotten else f"no row of {what} could"
    nor = f", nor any of {len(others)} from all over the data" if others else ""
    kind = UnsupportedModelError if commonest(faults)[0].code in REFUSED_BY_MODEL else DataError
    raise kind(f"{whose} be scored{nor}; {describe_faults(faults)}")


def _has_usable(records: Sequence[Record], scorer: UnitScorer) -> bool:
    """Whether any of the rows gets a score; tried bit by bit."""
    some = (records[start : start + _AT_ONCE] for start in range(0, len(records), _AT_ONCE))
    return any(score.status == "ok" for part in some for score in scorer.compute(scorer.prepare(0, part)).scores)

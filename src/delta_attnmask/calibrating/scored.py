"""What the sample's records scored as candidates, each setting in each form, and the choice of one. Numpy only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from delta_attnmask.calibration import Candidate
from delta_attnmask.derived import derive, derived_names, needed_columns
from delta_attnmask.errors import DataError, TooLittleDataError
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore
from delta_attnmask.settings import MaskSettings
from delta_attnmask.statistics import Values

FORMS = ("relative_delta", "delta", "delta_minus_loss", "delta_probability")
MIN_ORIGINALS = 60  # with fewer, no interval means anything

Outcome = tuple[list[SampleScore], dict[int, list[float]]]  # scores, and row -> masked loss for each setting
# Scores records (numbered from 0) under a grid.
Score = Callable[[Sequence[Record]], Iterator[Outcome]]


@dataclass(frozen=True)
class Scored:
    """Every candidate's value for every planted record; NaN where a row failed or the candidate has none.

    stored: what scoring gave without a mask, by column. [n_records]
    """

    candidates: list[Candidate]
    values: list[Values]
    stored: Mapping[str, Values]

    @property
    def loss(self) -> Values:
        return self.stored["loss"]


@dataclass(frozen=True)
class Results:
    """What scoring gave: columns [n_records], masked losses [setting, n_records], and why rows failed."""

    stored: dict[str, Values]
    masked: Values
    reasons: dict[int, str]


def collect(outcomes: Iterator[Outcome], n_settings: int, n_records: int) -> Results:
    """The outcomes as arrays by record."""
    found = Results({"loss": np.full(n_records, np.nan)}, np.full((n_settings, n_records), np.nan), {})
    for scores, sweep in outcomes:
        for one in scores:
            for name, number in _numbers(one).items():
                found.stored.setdefault(name, np.full(n_records, np.nan))[one.row] = number
        found.reasons.update({one.row: one.reason for one in scores if one.status != "ok"})
        for row, losses in sweep.items():
            found.masked[:, row] = losses
    return found


def require_scored(originals: Sequence[Record], results: Results) -> None:
    """Raises DataError if no original has a score, TooLittleDataError if fewer than 60 have one.

    If most have failed, and all with an image among them, a few text-only rows don't count: the images are missing.
    originals: the first of the records that were scored.
    """
    is_scored = np.isfinite(results.stored["loss"][: len(originals)])
    n_scored, n_rows = int(is_scored.sum()), len(originals)
    has_image = np.array([bool(record.images) for record in originals])
    if n_scored == n_rows:
        return
    first = min(results.reasons)  # an original, since one at least has failed
    why = f"row {originals[first].row}: {results.reasons[first]}"
    if not n_scored:
        raise no_row_scored(f"none of the {n_rows} rows that were tried", why)
    if 2 * n_scored < n_rows and not is_scored[has_image].any():
        raise no_row_scored(f"none of the {has_image.sum()} rows with an image that were tried", why)
    if n_scored < MIN_ORIGINALS:
        raise TooLittleDataError(
            f"only {n_scored} of the {n_rows} rows that were tried can be scored, and calibrating needs "
            f"{MIN_ORIGINALS}; {why}"
        )


def no_row_scored(which: str, why: str) -> DataError:
    """The error for data that can't be scored as it is called."""
    return DataError(
        f"{which} can be scored; {why}; fix that (often it is the folder of --images) and start again; "
        "`delta-attnmask check` with the same --data and --images shows what is wrong with each row"
    )


def make_candidates(results: Results, grid: Sequence[MaskSettings]) -> Scored:
    """Every score that the results hold or suffice for."""
    stored, candidates, values = results.stored, [], []
    for setting, masked_loss in zip(grid, results.masked, strict=True):
        columns = stored | {"masked_loss": masked_loss, "delta": masked_loss - stored["loss"]}
        for form in FORMS:
            candidates.append(Candidate(form, setting))
            values.append(columns[form] if form in columns else derive(form, columns.__getitem__))
    for name in _rivals(stored):
        candidates.append(Candidate(name))
        values.append(stored[name] if name in stored else derive(name, stored.__getitem__))
    return Scored(candidates, values, stored)


def _numbers(one: SampleScore) -> dict[str, float]:
    if one.status != "ok":
        return {}
    columns = {"loss": one.loss, "n_answer_tokens": one.n_answer_tokens, **one.extra}
    return {name: float(number) for name, number in columns.items() if number is not None}


def _rivals(stored: dict[str, Values]) -> list[str]:
    """Scores without a mask: those stored by their own name, and those derived from what is stored."""
    raw = [name for name in stored if name not in {"loss", "n_answer_tokens"} and not name.startswith("loss_")]
    return raw + [name for name in derived_names() if needed_columns(name) <= stored.keys()]

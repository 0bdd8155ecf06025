"""What the sample's records scored as candidates, each setting in each form, and the choice of one. Numpy only."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from delta_attnmask.calibration import KEPT, Candidate
from delta_attnmask.derived import derive, derived_names, needed_columns
from delta_attnmask.errors import DataError, TooLittleDataError
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore
from delta_attnmask.settings import MaskSettings
from delta_attnmask.statistics import Values
from delta_attnmask.storage import write_text_atomically

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


class KeptUnits:
    """What scoring gave for units of records, kept in a folder until the calibration is saved there.

    FOLDER/calibrating/IDENTITY/unit-00000.json. folder: None keeps nothing. identity: decides what was given.
    seconds: that the units took which were kept before.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        name = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self._home = None if folder is None else folder / KEPT / name
        self.seconds = 0.0

    def read(self, unit: int) -> Outcome | None:
        """A unit's outcome; None where there is none that can be read."""
        if self._home is None:
            return None
        try:
            kept = json.loads((self._home / f"unit-{unit:05d}.json").read_text(encoding="utf-8"))
            scores = [SampleScore(**score | {"own": tuple(score["own"])}) for score in kept["scores"]]
            sweep = {int(row): list(losses) for row, losses in kept["sweep"].items()}
            self.seconds += float(kept["seconds"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return scores, sweep

    def write(self, unit: int, outcome: Outcome, seconds: float) -> None:
        if self._home is not None:
            kept = {"scores": [asdict(score) for score in outcome[0]], "sweep": outcome[1], "seconds": seconds}
            write_text_atomically(self._home / f"unit-{unit:05d}.json", json.dumps(kept))

    def forget(self) -> None:
        """Remove what is kept, so that the next start scores everything."""
        if self._home is not None:
            rmtree(self._home.parent, ignore_errors=True)


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

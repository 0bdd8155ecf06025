"""Find, on the user's own data, the setting whose score ranks rows above copies of them with a planted defect."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from delta_attnmask.calibrating.choice import RULE, Candidate, Separations, choose, value, visible_kinds
from delta_attnmask.calibrating.defects import Donors
from delta_attnmask.calibrating.quota import choose_quota
from delta_attnmask.calibrating.sample import Planted, plant, stratified_sample
from delta_attnmask.calibrating.separation import Separation, Values, auroc, separate
from delta_attnmask.derived import derive, derived_names, needed_columns
from delta_attnmask.errors import DataError
from delta_attnmask.reading.traits import answer_type, question
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore
from delta_attnmask.settings import MaskSettings

FORMS = ("relative_delta", "delta", "delta_minus_loss", "delta_probability")
MIN_ORIGINALS = 60  # with fewer, the halves are too small for any interval to mean something

# Scores records (numbered from 0) under a grid: one score each, and row -> masked loss for each setting.
Score = Callable[[Iterator[list[Record]]], Iterator[tuple[list[SampleScore], dict[int, list[float]]]]]


@dataclass(frozen=True)
class Scored:
    """Every candidate's value for every planted record; NaN where a row failed or the candidate has none."""

    candidates: list[Candidate]
    values: list[Values]
    loss: Values


@dataclass(frozen=True)
class Calibration:
    """What was found. `report` is what calibration.json holds, plain JSON values."""

    candidate: Candidate
    report: dict[str, Any]

    @property
    def settings(self) -> MaskSettings:
        assert self.candidate.settings is not None
        return self.candidate.settings


def calibrate(
    records: Iterable[Record],
    score: Score,
    grid: Sequence[MaskSettings],
    *,
    n_rows: int = 240,
    copies_per_row: int = 3,
    seed: int = 0,
    batch: int = 256,
) -> Calibration:
    """Plant defects in a sample of `records`, score everything under `grid`, choose by the rule of `choice.py`.

    score: gives the scores of lists of records, with the masked losses of `grid` in its order.
    Raises DataError where the data is too small: fewer than 60 usable rows, or no kind of defect fits 20 of them.
    """
    started = time.monotonic()
    usable = [record for record in records if not record.reason]
    originals = stratified_sample(usable, n_rows, seed)
    if len(originals) < MIN_ORIGINALS:
        raise DataError(f"{len(originals)} usable rows are too few to calibrate on; it takes {MIN_ORIGINALS}")
    planted = plant(originals, Donors(usable), copies_per_row, seed)
    if not planted.kinds:
        raise DataError("no kind of defect could be planted in 20 rows of the sample; there is nothing to tell apart")
    parts = (planted.records[start : start + batch] for start in range(0, len(planted.records), batch))
    scored = _candidates(score(iter(list(parts))), grid, len(planted.records))
    return _decide(planted, scored, started, seed)


def _candidates(
    results: Iterator[tuple[list[SampleScore], dict[int, list[float]]]], grid: Sequence[MaskSettings], n_records: int
) -> Scored:
    stored: dict[str, Values] = {}
    masked = np.full((len(grid), n_records), np.nan)
    for scores, sweep in results:
        for one in scores:
            for name, number in _numbers(one).items():
                stored.setdefault(name, np.full(n_records, np.nan))[one.row] = number
        for row, losses in sweep.items():
            masked[:, row] = losses
    candidates, values = [], []
    for setting, masked_loss in zip(grid, masked, strict=True):
        columns = stored | {"masked_loss": masked_loss, "delta": masked_loss - stored["loss"]}
        for form in FORMS:
            candidates.append(Candidate(form, setting))
            values.append(columns[form] if form in columns else derive(form, columns.__getitem__))
    for name in _rivals(stored):
        candidates.append(Candidate(name))
        values.append(stored[name] if name in stored else derive(name, stored.__getitem__))
    return Scored(candidates, values, stored["loss"])


def _numbers(one: SampleScore) -> dict[str, float]:
    if one.status != "ok":
        return {}
    columns = {"loss": one.loss, "n_answer_tokens": one.n_answer_tokens, **one.extra}
    return {name: float(number) for name, number in columns.items() if number is not None}


def _rivals(stored: dict[str, Values]) -> list[str]:
    """Scores without a mask: those stored by their own name, and those derived from what is stored."""
    raw = [name for name in stored if name not in {"loss", "n_answer_tokens"} and not name.startswith("loss_")]
    return raw + [name for name in derived_names() if needed_columns(name) <= stored.keys()]


def _decide(planted: Planted, scored: Scored, started: float, seed: int) -> Calibration:
    halves = {half: [_separations(planted, values, half) for values in scored.values] for half in ("choose", "report")}
    seen = visible_kinds(halves["choose"], planted.kinds)
    chosen = choose(scored.candidates, halves["choose"], seen or planted.kinds)
    candidate = scored.candidates[chosen]
    assert candidate.settings is not None
    kinds = seen or planted.kinds
    report = {
        "schema": 1,
        "settings": candidate.settings.to_dict(),
        "form": candidate.form,
        "rule": RULE,
        "seed": seed,
        "n_originals": planted.kind.count(""),
        "n_planted": len(planted.records) - planted.kind.count(""),
        "visible_kinds": seen,
        "chosen": _summary(candidate, halves["report"][chosen], kinds),
        "kinds": {kind: _kind_report(kind, halves, scored, chosen, seen) for kind in planted.kinds},
        "quota": choose_quota(
            scored.values[chosen], planted.original, [kind != "" for kind in planted.kind], _strata_columns(planted)
        ),
        "sources": _by_source(planted, scored.values[chosen]),
        "low_loss": _kinship(planted, scored, chosen, kinds),
        "warnings": _warnings(planted, halves["report"], scored, seen),
        "candidates": [
            _summary(each, found, kinds) for each, found in zip(scored.candidates, halves["report"], strict=True)
        ],
        "seconds": round(time.monotonic() - started, 1),
    }
    return Calibration(candidate, report)


def _strata_columns(planted: Planted) -> dict[str, list[str]]:
    return {
        "source": [record.source for record in planted.records],
        "question": [question(record) for record in planted.records],
        "answer_type": [answer_type(record) for record in planted.records],
    }


def _separations(planted: Planted, values: Values, half: str) -> dict[str, Separation]:
    return {
        kind: separate(values[[planted.original[i] for i in copies]], values[copies])
        for kind in planted.kinds
        for copies in [_copies(planted, kind, half)]
    }


def _copies(planted: Planted, kind: str, half: str | None = None) -> list[int]:
    return [i for i, k in enumerate(planted.kind) if k == kind and half in (None, planted.half[i])]


def _summary(candidate: Candidate, found: Separations, kinds: Sequence[str]) -> dict[str, Any]:
    """A candidate on the half that it wasn't chosen on."""
    return {
        "form": candidate.form,
        "settings": candidate.settings.to_dict() if candidate.settings else None,
        "is_control": candidate.is_control,
        "value": _rounded(value(found, kinds)),
        "mean": _rounded(_mean(found, kinds)),
        "worst": _rounded(min(found[kind].auroc for kind in kinds)),
        "auroc": {kind: _rounded(separation.auroc) for kind, separation in found.items()},
    }


def _kind_report(
    kind: str, halves: dict[str, list[dict[str, Separation]]], scored: Scored, chosen: int, seen: Sequence[str]
) -> dict[str, Any]:
    on_choose = [found[kind].auroc for found in halves["choose"]]
    best = int(np.nanargmax(on_choose)) if not np.all(np.isnan(on_choose)) else chosen
    return {
        "is_visible": kind in seen,
        "chosen": {name: _rounded(number) for name, number in asdict(halves["report"][chosen][kind]).items()},
        "best": str(scored.candidates[best]),
        "best_auroc": _rounded(halves["report"][best][kind].auroc),
    }


def _by_source(planted: Planted, values: Values) -> dict[str, dict[str, float | None]]:
    """AUROC of the chosen score, each source's originals against its own copies; both halves."""
    sources = sorted({record.source for record in planted.records})
    found: dict[str, dict[str, float | None]] = {}
    for source in sources:
        of_source = [i for i, first in enumerate(planted.original) if planted.records[first].source == source]
        by_kind = {
            kind: auroc(values[[planted.original[i] for i in copies]], values[copies])
            for kind in planted.kinds
            if (copies := [i for i in of_source if planted.kind[i] == kind])
        }
        found[source] = {kind: _rounded(number) for kind, number in by_kind.items()}
    return found


def _kinship(planted: Planted, scored: Scored, chosen: int, kinds: Sequence[str]) -> dict[str, Any]:
    """What the chosen score adds to low loss: rank correlation, and the AUROC of each alone and of their mean rank."""
    ours, low = scored.values[chosen], -scored.loss
    both = (_ranks(ours) + _ranks(low)) / 2
    values = {"chosen": ours, "low_loss": low, "together": both}
    alone = {name: _separations(planted, each, "report") for name, each in values.items()}
    is_original = np.array(planted.kind) == ""
    return {
        "spearman": _rounded(_spearman(ours[is_original], low[is_original])),
        "value": {name: _rounded(value(found, kinds)) for name, found in alone.items()},
        "mean_auroc": {name: _rounded(_mean(found, kinds)) for name, found in alone.items()},
    }


def _warnings(
    planted: Planted, on_report: list[dict[str, Separation]], scored: Scored, seen: Sequence[str]
) -> list[str]:
    """What no setting can see, in plain words."""
    lines = []
    if "image_swapped" in planted.kinds and "image_swapped" not in seen:
        best = np.nanmax([found["image_swapped"].auroc for found in on_report])
        lines.append(
            f"this model can't tell a swapped image from the right one (best AUROC {best:.2f}, chance 0.5): either it "
            "doesn't look at images, or its attention is badly calibrated; no score made with it finds wrong images"
        )
    unseen = [kind for kind in planted.kinds if kind not in seen and kind != "image_swapped"]
    if unseen:
        lines.append(f"no score tells these defects from good rows: {', '.join(unseen)}")
    failed = float(np.isnan(scored.loss).mean())
    if failed > 0.05:
        lines.append(f"{failed:.0%} of the sample's rows could not be scored")
    return lines


def _mean(found: Separations, kinds: Sequence[str]) -> float:
    return float(np.mean([found[kind].auroc for kind in kinds]))


def _ranks(values: Values) -> Values:
    ranks = np.full(values.shape, np.nan)
    is_known = ~np.isnan(values)
    ranks[is_known] = np.argsort(np.argsort(values[is_known], kind="stable"), kind="stable")
    return ranks


def _spearman(first: Values, second: Values) -> float:
    is_known = ~(np.isnan(first) | np.isnan(second))
    return float(np.corrcoef(_ranks(first[is_known]), _ranks(second[is_known]))[0, 1])


def _rounded(number: float) -> float | None:
    return None if np.isnan(number) else round(float(number), 4)

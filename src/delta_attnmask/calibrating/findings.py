"""What calibrating found: the choice, and how well scores separate originals from planted copies. NumPy only."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from delta_attnmask.calibrating.planting import Planted
from delta_attnmask.calibrating.quota_rating import choose_quota
from delta_attnmask.calibrating.scored import RULE, Scored, Separations, choose, value, visible_kinds
from delta_attnmask.calibration import Candidate
from delta_attnmask.errors import TooLittleDataError
from delta_attnmask.records import answer_type, question
from delta_attnmask.statistics import Separation, Values, midranks, rounded, separate, spearman

_MIN_ORIGINALS = 10  # of a source; with fewer, no interval is given

# Which half of the originals each part of the report is from; * is any kind.
_FIGURES = {
    "choose": ["settings", "form", "visible_kinds", "kinds.*.best"],
    "report": [
        "chosen",
        "kinds.*.chosen",
        "kinds.*.best_auroc",
        "sources",
        "low_loss.value",
        "low_loss.mean_auroc",
        "candidates",
        "warnings",
    ],
    "both": ["quota", "low_loss.spearman"],
}


def make_report(planted: Planted, scored: Scored, started: float, seed: int) -> dict[str, Any]:
    """The content of calibration.json, but for what it was made with.

    started: monotonic seconds. Raises TooLittleDataError where no kind of defect has a scored pair in both halves.
    """
    halves = {half: [_separations(planted, values, half) for values in scored.values] for half in ("choose", "report")}
    measured = _measured_kinds(planted, scored.loss)
    seen = visible_kinds(halves["choose"], measured)
    kinds = seen or measured
    chosen = choose(scored.candidates, halves["choose"], kinds)
    candidate = scored.candidates[chosen]
    assert candidate.settings is not None
    return {
        "schema": 2,
        "settings": candidate.settings.to_dict(),
        "form": candidate.form,
        "rule": RULE,
        "seed": seed,
        "n_originals": planted.kind.count(""),
        "n_planted": len(planted.records) - planted.kind.count(""),
        "halves": _halves(planted),
        "visible_kinds": seen,
        "chosen": _summary(candidate, halves["report"][chosen], kinds),
        "kinds": {kind: _kind_report(kind, halves, scored, chosen, seen) for kind in measured},
        "quota": choose_quota(
            scored.values[chosen], planted.original, [kind != "" for kind in planted.kind], _strata_columns(planted)
        ),
        "sources": by_source(planted, scored.values[chosen], kinds),
        "low_loss": _kinship(planted, scored, chosen, kinds),
        "warnings": _warnings(measured, halves["report"], scored, seen),
        "candidates": [
            _summary(each, found, kinds) for each, found in zip(scored.candidates, halves["report"], strict=True)
        ],
        "seconds": round(time.monotonic() - started, 1),
    }


def _halves(planted: Planted) -> dict[str, dict[str, Any]]:
    """For each half and for both: how many originals it has, and which figures are from it."""
    of_originals = [half for half, kind in zip(planted.half, planted.kind, strict=True) if not kind]
    counts = {"choose": of_originals.count("choose"), "report": of_originals.count("report")}
    counts["both"] = len(of_originals)
    return {half: {"n_originals": counts[half], "figures": figures} for half, figures in _FIGURES.items()}


def _measured_kinds(planted: Planted, loss: Values) -> list[str]:
    """The kinds of which both halves have a pair that could be scored."""
    pairs = [_separations(planted, loss, half) for half in ("choose", "report")]
    kinds = [kind for kind in planted.kinds if all(found[kind].n_pairs for found in pairs)]
    if not kinds:
        raise TooLittleDataError("no planted copy could be scored beside its original in both halves of the sample")
    return kinds


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
        "value": rounded(value(found, kinds)),
        "mean": rounded(_mean(found, kinds)),
        "worst": rounded(min(found[kind].auroc for kind in kinds)),
        "auroc": {kind: rounded(separation.auroc) for kind, separation in found.items()},
    }


def _kind_report(
    kind: str, halves: dict[str, list[dict[str, Separation]]], scored: Scored, chosen: int, seen: Sequence[str]
) -> dict[str, Any]:
    on_choose = [found[kind].auroc for found in halves["choose"]]
    best = int(np.nanargmax(on_choose)) if not np.all(np.isnan(on_choose)) else chosen
    return {
        "is_visible": kind in seen,
        "chosen": {name: rounded(number) for name, number in asdict(halves["report"][chosen][kind]).items()},
        "best": str(scored.candidates[best]),
        "best_auroc": rounded(halves["report"][best][kind].auroc),
    }


def _kinship(planted: Planted, scored: Scored, chosen: int, kinds: Sequence[str]) -> dict[str, Any]:
    """What the chosen score adds to low loss: rank correlation, and the AUROC of each alone and of their mean rank."""
    ours, low = scored.values[chosen], -scored.loss
    both = (midranks(ours) + midranks(low)) / 2
    values = {"chosen": ours, "low_loss": low, "together": both}
    alone = {name: _separations(planted, each, "report") for name, each in values.items()}
    is_original = np.array(planted.kind) == ""
    return {
        "spearman": rounded(spearman(ours[is_original], low[is_original])),
        "value": {name: rounded(value(found, kinds)) for name, found in alone.items()},
        "mean_auroc": {name: rounded(_mean(found, kinds)) for name, found in alone.items()},
    }


def _warnings(
    measured: Sequence[str], on_report: list[dict[str, Separation]], scored: Scored, seen: Sequence[str]
) -> list[str]:
    """What no setting can see, in plain words."""
    lines = []
    if "image_swapped" in measured and "image_swapped" not in seen:
        best = np.nanmax([found["image_swapped"].auroc for found in on_report])
        lines.append(
            f"this model can't distinguish a swapped image from the right one (best AUROC {best:.2f}, chance 0.5): "
            "either it doesn't look at images, or its attention is badly calibrated; no score of it finds wrong images"
        )
    unseen = [kind for kind in measured if kind not in seen and kind != "image_swapped"]
    if unseen:
        lines.append(f"no score separates these defects from good rows: {', '.join(unseen)}")
    failed = float(np.isnan(scored.loss).mean())
    if failed > 0.05:
        lines.append(f"{failed:.0%} of the sample's rows could not be scored")
    return lines


def _mean(found: Separations, kinds: Sequence[str]) -> float:
    return float(np.mean([found[kind].auroc for kind in kinds]))


def by_source(planted: Planted, values: Values, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """AUROC of each source's originals against their own copies, with intervals that resample originals.

    Returns plain JSON values: source -> together (`kinds` taken together), kinds (each kind that was planted); each of
    them auroc, low, high, n_originals, n_pairs. low and high are null where fewer than 10 originals speak.
    """
    of_source: dict[str, list[int]] = {}
    for idx, first in enumerate(planted.original):
        if planted.kind[idx] and planted.half[idx] == "report":
            of_source.setdefault(planted.records[first].source, []).append(idx)
    return {
        source: {
            "together": _separation(planted, values, [idx for idx in copies if planted.kind[idx] in kinds]),
            "kinds": {
                kind: _separation(planted, values, own)
                for kind in planted.kinds
                if (own := [idx for idx in copies if planted.kind[idx] == kind])
            },
        }
        for source, copies in sorted(of_source.items())
    }


def _separation(planted: Planted, values: Values, copies: list[int]) -> dict[str, Any]:
    firsts = np.array([planted.original[idx] for idx in copies], dtype=np.int64)
    found = separate(values[firsts], values[copies], groups=firsts)
    is_known = ~(np.isnan(values[firsts]) | np.isnan(values[copies]))
    n_originals = len(np.unique(firsts[is_known]))
    low, high = _interval(found, n_originals)
    return {
        "auroc": rounded(found.auroc),
        "low": low,
        "high": high,
        "n_originals": n_originals,
        "n_pairs": found.n_pairs,
    }


def _interval(found: Separation, n_originals: int) -> tuple[float | None, float | None]:
    return (None, None) if n_originals < _MIN_ORIGINALS else (rounded(found.low), rounded(found.high))

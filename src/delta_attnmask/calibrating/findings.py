"""What calibrating found: the choice, and how well scores separate originals from planted copies. No torch here."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from delta_attnmask.calibrating.judging import RULE, Choice, Trial, Way
from delta_attnmask.calibrating.planting import Planted
from delta_attnmask.calibrating.quota_rating import choose_quota
from delta_attnmask.calibrating.scored import Scored
from delta_attnmask.calibration import SCHEMA, Candidate
from delta_attnmask.errors import TooLittleDataError
from delta_attnmask.records import answer_type, question
from delta_attnmask.statistics import Separation, Values, midranks, rounded, separate, spearman

_MIN_PAIRS = 10  # of a kind
_MIN_ORIGINALS = 10  # of a source; with fewer, no interval is given
_VISIBLE_ABOVE = 0.55  # AUROC; a score sees a kind if its 95 % interval is above it
_PASSING = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # shares of the planted copies


def make_report(planted: Planted, scored: Scored, started: float, seed: int) -> dict[str, Any]:
    """The content of calibration.json, but for what it was made with.

    Every figure of the chosen way is from values that were learned without the row, those of a kind of defect also
    without that kind. started: monotonic seconds. Raises TooLittleDataError where no kind of defect has a scored pair.
    """
    kinds = _measured_kinds(planted, scored.loss)
    trial = Trial(planted, scored, kinds)
    choice = trial.choose()
    of_chosen = {kind: separate(*trial.pairs(choice.way.held_out[kind], kind)) for kind in kinds}
    of_all = [{kind: separate(*trial.pairs(values, kind)) for kind in kinds} for values in scored.values]
    kinds_report = {kind: _kind_report(kind, of_chosen[kind], of_all, scored.candidates) for kind in kinds}
    seen = [kind for kind, one in kinds_report.items() if one["is_visible"]]
    return {
        "schema": SCHEMA,
        "settings": choice.settings.to_dict(),
        "form": choice.form,
        "judge": choice.judge and choice.judge.to_dict(),
        "passing": _passing(trial, trial.column_of(choice.way)),
        "rule": RULE,
        "seed": seed,
        "n_originals": planted.kind.count(""),
        "n_planted": len(planted.records) - planted.kind.count(""),
        "visible_kinds": seen,
        "chosen": _summary(choice.candidate, of_chosen)
        | {
            "copies_kept": rounded(trial.value(choice.way)),
            "standard_error": rounded(trial.standard_error(choice.way)),
        },
        "ways": [_way_report(trial, way, choice) for way in trial.ways],
        "kinds": kinds_report,
        "quota": choose_quota(
            choice.way.values, planted.original, [kind != "" for kind in planted.kind], _strata_columns(planted)
        ),
        "sources": by_source(planted, choice.way.values, seen or kinds),
        "low_loss": _kinship(trial, choice),
        "warnings": _warnings(trial, choice, kinds_report, [kind for kind in planted.kinds if kind not in kinds]),
        "candidates": [
            _summary(candidate, found)
            | {"copies_kept": rounded(float(np.mean([trial.kept(values, kind) for kind in kinds])))}
            for candidate, values, found in zip(scored.candidates, scored.values, of_all, strict=True)
        ],
        "seconds": round(time.monotonic() - started, 1),
    }


def _measured_kinds(planted: Planted, loss: Values) -> list[str]:
    """The kinds of which enough pairs could be scored to learn from some and judge by others."""
    is_known = np.isfinite(loss)
    is_pair = is_known & is_known[planted.original]
    n_pairs = Counter(kind for kind, is_scored in zip(planted.kind, is_pair, strict=True) if kind and is_scored)
    kinds = sorted(kind for kind, n in n_pairs.items() if n >= _MIN_PAIRS)
    if not kinds:
        raise TooLittleDataError(f"no kind of planted copies could be scored beside {_MIN_PAIRS} of their originals")
    return kinds


def _strata_columns(planted: Planted) -> dict[str, list[str]]:
    return {
        "source": [record.source for record in planted.records],
        "question": [question(record) for record in planted.records],
        "answer_type": [answer_type(record) for record in planted.records],
    }


def _summary(candidate: Candidate, found: dict[str, Separation]) -> dict[str, Any]:
    aurocs = {kind: rounded(separation.auroc) for kind, separation in found.items()}
    known = [auroc for auroc in aurocs.values() if auroc is not None]
    return {
        "form": candidate.form,
        "settings": candidate.settings.to_dict() if candidate.settings else None,
        "is_control": candidate.is_control,
        "mean": rounded(float(np.mean(known))) if known else None,
        "worst": min(known, default=None),
        "auroc": aurocs,
    }


def _way_report(trial: Trial, way: Way, choice: Choice) -> dict[str, Any]:
    """settings, judge: what it would rank by; null where it masks nothing or has none, and for a control."""
    setting, judge = trial.setting_of(way), trial.judge_of(way)
    return {
        "name": way.name,
        "settings": setting and setting.to_dict(),
        "judge": judge and judge.to_dict(),
        "is_chosen": way.name == choice.way.name,
        "copies_kept": rounded(trial.value(way)),
        "standard_error": rounded(trial.standard_error(way, choice.way)),
        "mean_auroc": rounded(trial.mean_auroc(way)),
        "auroc_without_group": [rounded(value) for value in trial.aurocs_without_each_group(way)],
        "by_kind": {kind: rounded(trial.kept(way.held_out[kind], kind)) for kind in trial.kinds},
    }


def _passing(trial: Trial, values: Values) -> list[dict[str, Any]]:
    """Thresholds of the chosen score: which value a share of the planted copies reaches, and how many originals do."""
    copies, originals = (values[is_own & np.isfinite(values)] for is_own in (~trial.is_original, trial.is_original))
    above = np.quantile(copies, [1 - share for share in _PASSING])
    return [
        {"copies": share, "above": float(threshold), "originals": rounded(float((originals >= threshold).mean()))}
        for share, threshold in zip(_PASSING, above, strict=True)
    ]


def _kind_report(
    kind: str, chosen: Separation, of_all: Sequence[dict[str, Separation]], candidates: Sequence[Candidate]
) -> dict[str, Any]:
    """is_visible: whether the chosen score sees the kind. best: the candidate that sees it best."""
    aurocs = [found[kind].auroc for found in of_all]
    best = int(np.nanargmax(aurocs))
    return {
        "is_visible": chosen.low > _VISIBLE_ABOVE,
        "is_seen_by_any": max(chosen.low, of_all[best][kind].low) > _VISIBLE_ABOVE,
        "chosen": {name: rounded(number) for name, number in asdict(chosen).items()},
        "best": str(candidates[best]),
        "best_auroc": rounded(aurocs[best]),
    }


def _kinship(trial: Trial, choice: Choice) -> dict[str, Any]:
    """What the chosen score adds to low loss: rank correlation, and the figures of each and of their mean rank."""
    low, ours = -trial.scored.loss, choice.way.held_out
    together = {kind: (midranks(ours[kind]) + midranks(low)) / 2 for kind in trial.kinds}
    low_loss = Way("low_loss", dict.fromkeys(trial.kinds, low), low)
    ways = {"chosen": choice.way, "low_loss": low_loss, "together": Way("together", together, low)}
    return {
        "spearman": rounded(spearman(choice.way.values[trial.is_original], low[trial.is_original])),
        "copies_kept": {name: rounded(trial.value(way)) for name, way in ways.items()},
        "mean_auroc": {name: rounded(trial.mean_auroc(way)) for name, way in ways.items()},
    }


def _warnings(trial: Trial, choice: Choice, kinds: dict[str, dict[str, Any]], too_few: list[str]) -> list[str]:
    """What the chosen score can't see, and what nobody can tell, in plain words. too_few: kinds with too few pairs."""
    lines = []
    if "image_swapped" in kinds and not kinds["image_swapped"]["is_seen_by_any"]:
        lines.append(
            "this model can't distinguish a swapped image from the right one (best AUROC "
            f"{kinds['image_swapped']['best_auroc']:.2f}, chance 0.5): it may not look at images; no score of it finds "
            "wrong images"
        )
    unseen = [kind for kind, one in kinds.items() if not one["is_seen_by_any"] and kind != "image_swapped"]
    if unseen:
        lines.append(f"no score separates these defects from good rows: {', '.join(unseen)}")
    missed = [kind for kind, one in kinds.items() if one["is_seen_by_any"] and not one["is_visible"]]
    if missed:
        lines.append(f"the chosen score doesn't see these defects, though another one does: {', '.join(missed)}")
    if too_few:
        lines.append(f"too few pairs could be scored to tell whether these defects are seen: {', '.join(too_few)}")
    failed = float(np.isnan(trial.scored.loss).mean())
    if failed > 0.05:
        lines.append(f"{failed:.0%} of the sample's rows could not be scored")
    return lines


def by_source(planted: Planted, values: Values, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """AUROC of each source's originals against their own copies, with intervals that resample originals.

    Returns plain JSON values: source -> together (`kinds` taken together), kinds (each kind that was planted); each of
    them auroc, low, high, n_originals, n_pairs. low and high are null where fewer than 10 originals speak.
    """
    of_source: dict[str, list[int]] = {}
    for idx, first in enumerate(planted.original):
        if planted.kind[idx]:
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

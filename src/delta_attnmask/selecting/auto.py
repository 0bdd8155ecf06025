"""The rule that is taken where the user names none: quotas, by the columns that the rule of `mix.py` chooses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from delta_attnmask.errors import ArtifactError
from delta_attnmask.selecting.mix import (
    MIX_COLUMNS,
    QUOTAS,
    RULE,
    UNCALIBRATED,
    choose_quota,
    excess_distortion,
    joint,
    kept_set,
    questions_repeat,
)
from delta_attnmask.selecting.rules import Candidates
from delta_attnmask.selecting.strata import candidate_strata

_MAX_SAMPLE = 200_000  # candidates that the distortions are measured on


@dataclass(frozen=True)
class Calibrated:
    """What `select` reads of a run's calibration.

    form, settings: the column that it chose, and the mask settings.
    planted_ratio: quota to planted copies kept relative to chance; {} if not rated.
    warnings: what no setting could see, in plain words. seconds: how long it took.
    """

    form: str
    planted_ratio: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def ratios_for(self, column: str, settings: Mapping[str, Any]) -> Mapping[str, float]:
        """`planted_ratio` if it was measured on this column under these settings of a run; else {}."""
        is_same = all(settings.get(name) == value for name, value in self.settings.items())
        return self.planted_ratio if column == self.form and is_same else {}


def read_calibrated(run: Path) -> Calibrated | None:
    """RUN/calibration.json, or None where there is none."""
    path = run / "calibration.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        options = report.get("quota", {}).get("options", {})
        ratios = {name: float(option["planted_ratio"]) for name, option in options.items() if name in QUOTAS}
        warnings = tuple(map(str, report["warnings"]))
        return Calibrated(
            report["form"], ratios, warnings, float(report.get("seconds", 0)), dict(report.get("settings", {}))
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no calibration: {error}; remove it or calibrate again") from error


@dataclass(frozen=True)
class QuotaChoice:
    """columns: of the quota; () for none. details: how it was chosen, for the selection's note."""

    columns: tuple[str, ...]
    details: dict[str, Any]


def choose_columns(
    candidates: Candidates, share: float, planted_ratio: Mapping[str, float], *, needs_quota: bool = False
) -> QuotaChoice:
    """Which columns to keep in balance, by the rule of `mix.py`.

    share: of the candidates that is kept. planted_ratio: {} if the ranking column wasn't calibrated.
    needs_quota: never choose none.
    """
    if not planted_ratio:
        return QuotaChoice(QUOTAS[UNCALIBRATED], {"chosen": UNCALIBRATED, "is_calibrated": False, "rule": RULE})
    excess = _excess(candidates, share)
    offered = {
        quota: excess[quota] for quota in excess if quota in planted_ratio and (quota != "none" or not needs_quota)
    }
    chosen = choose_quota(planted_ratio, offered)
    options = {
        quota: {"planted_ratio": planted_ratio[quota], "excess_distortion": round(value, 4)}
        for quota, value in offered.items()
    }
    return QuotaChoice(QUOTAS[chosen], {"chosen": chosen, "is_calibrated": True, "options": options, "rule": RULE})


def _excess(candidates: Candidates, share: float) -> dict[str, float]:
    """The distortion that each quota on offer causes, measured on evenly spaced candidates where there are many."""
    spaced = np.arange(0, len(candidates), -(-len(candidates) // _MAX_SAMPLE))
    names = {name for columns in QUOTAS.values() for name in columns}
    columns = {name: candidate_strata(candidates, (name,)).take(spaced) for name in sorted(names)}
    values, n_keep = candidates.values[spaced], min(len(spaced), max(1, round(share * len(spaced))))
    repeat = questions_repeat(columns["question"])
    mix = joint(columns, MIX_COLUMNS)
    return {
        quota: excess_distortion(mix, kept_set(values, columns, quota, n_keep))
        for quota, needed in QUOTAS.items()
        if repeat or "question" not in needed
    }

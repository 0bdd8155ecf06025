"""Every way of choosing rows, by name: `score/rule`, or a control's name. Scores and rules are the product's own.

score: low_loss; judge or judge_with_delta, p_good of what calibration learned, chosen or not; delta, Δ - loss under
calibration's best mask setting; chosen, what calibration ranks by; old, what it chose before it learned a judge; paper;
a rival; or roundsN_low_loss, roundsN_judge and so on, the same of models that learned from what N rounds trust.
rule: top; quota, the highest of each source; or trusted, drawn from each source's best rows;
quota-mix and trusted-mix do so by source and form of answer.
select: what the command keeps by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from delta_attnmask.calibrating.judging import JUDGE, JUDGE_WITH_DELTA
from delta_attnmask.calibration import Calibration
from delta_attnmask.judge import Judge
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import find_candidates, ranking_values
from delta_attnmask.selecting.quotas import MIX_COLUMNS, distortion
from delta_attnmask.selecting.run_selection import select_from_run
from delta_attnmask.selecting.selector import select_rows
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.settings import PRESETS, MaskSettings
from delta_attnmask.statistics import auroc

from .scoring import RIVALS, old_choice
from .workplace import Workplace

Rows = NDArray[np.int64]
SCORE = "score_of_method"  # a column

JUDGES = (JUDGE, JUDGE_WITH_DELTA)


@dataclass(frozen=True)
class ScoredPool:
    """The pool's rows and scores, and the defects that nobody but this code knows."""

    place: Workplace
    rows: pa.Table
    kind_of: dict[int, str]
    _values: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def kinds(self) -> NDArray[np.str_]:
        """Each row's defect, "" for good rows."""
        return np.array([self.kind_of.get(row, "") for row in range(len(self))])

    @property
    def mask(self) -> MaskSettings:
        """The calibration's best mask setting."""
        settings = RunFolder.open(self.place.scored()).manifest.settings
        return MaskSettings(**{name: settings[name] for name in MaskSettings().to_dict()})

    def values(self, score: str) -> NDArray[np.float64]:
        """A score of every row; NaN or infinite where a row can't be kept."""
        if score not in self._values:
            self._values[score] = self._read(score)
        return self._values[score]

    def _read(self, score: str) -> NDArray[np.float64]:
        place = self.place
        if score in ("paper", *RIVALS):
            return self._ranked(place.paper, PRESETS["paper"].form if score == "paper" else score)
        if score == "old":
            return self._ranked(place.old, old_choice(Calibration.load(place.calibration()).report)[0])
        rounds, _, name = (score.removeprefix("rounds") if score.startswith("rounds") else f"0_{score}").partition("_")
        run, report = place.scored(int(rounds)), Calibration.load(place.calibration(int(rounds))).report
        if name == "chosen":
            return self._ranked(run, str(report["form"]))
        if name in JUDGES:
            judge = Judge.from_dict(next(way["judge"] for way in report["ways"] if way["name"] == name))
            return judge.p_good(lambda column: self._ranked(run, column))
        return self._ranked(run, "delta_minus_loss" if name == "delta" else name)

    def _ranked(self, run: Path, column: str) -> NDArray[np.float64]:
        table = RunFolder.open(run).read_scores()
        if table["row"].to_pylist() != list(range(len(self))):
            raise ValueError("the scores aren't in the pool's order")
        return ranking_values(table, column)

    def pick(self, method: str, budget: float, seed: int) -> Rows:
        """The rows that a method keeps of the pool at a budget, a share; in the pool's order."""
        n_keep = round(budget * len(self))
        rng = np.random.default_rng(1000 + seed)
        if method == "none":
            return np.arange(0)
        if method == "full":
            return np.arange(len(self))
        if method == "random":
            return np.sort(rng.permutation(len(self))[:n_keep])
        if method == "oracle":
            return np.sort(rng.permutation(np.flatnonzero(self.kinds == ""))[:n_keep])
        if method == "select":
            return np.sort(select_from_run(RunFolder.open(self.place.scored()), n_keep).indices)
        score, _, rule = method.partition("/")
        table = self.rows.append_column(SCORE, pa.array(self.values(score), pa.float64()))
        rule, _, by = rule.partition("-")
        options: dict[str, object] = {} if rule == "top" else {"quota_by": MIX_COLUMNS if by else ("source",)}
        options |= {"seed": seed} if rule == "trusted" else {}
        n_possible = len(find_candidates(table, SCORE))
        return np.sort(select_rows(table, min(n_keep, n_possible), by=SCORE, rule=rule, **options).indices)

    def describe(self, method: str, picks: Rows) -> dict[str, object]:
        """Share of defects and distortion of the mix of some picks, and the AUROC of the method's score."""
        if not len(picks):
            return {}
        facts: dict[str, object] = {"defects": round(float((self.kinds[picks] != "").mean()), 4)}
        facts["distortion"] = round(distortion(strata_of(self.rows, MIX_COLUMNS), picks), 4)
        score = "chosen" if method == "select" else method.partition("/")[0] if "/" in method else ""
        if score and (self.kinds != "").any():
            facts["auroc"] = round(self.separation(score)["pooled"], 4)
        return facts

    def separation(self, score: str) -> dict[str, float]:
        """AUROC of good rows above defective ones: pooled, mean within sources, and by kind within sources."""
        values, sources = self.values(score), np.array(self.rows["source"].to_pylist())
        is_good = self.kinds == ""

        def within(is_bad: NDArray[np.bool_]) -> float:
            of_source = [
                auroc(values[is_good & (sources == source)], values[is_bad & (sources == source)])
                for source in np.unique(sources[is_bad])
            ]
            return float(np.mean(of_source))

        by_kind = {str(kind): within(self.kinds == kind) for kind in np.unique(self.kinds[~is_good])}
        return {"pooled": auroc(values[is_good], values[~is_good]), "within": within(~is_good), **by_kind}


def read_pool(place: Workplace) -> ScoredPool:
    """The pool as it was scored."""
    table = RunFolder.open(place.scored()).read_scores()
    return ScoredPool(place, table.select(["row", "status", "source", "answer_type"]), read_defects(place))


def read_unscored_pool(place: Workplace) -> ScoredPool:
    """The pool before any scoring: enough for random and defect-free picks."""
    sources = [entry["source"] for entry in json.loads((place.suite / "pool.json").read_text())]
    return ScoredPool(place, pa.table({"source": sources, "answer_type": [""] * len(sources)}), read_defects(place))


def read_defects(place: Workplace) -> dict[int, str]:
    """Row -> kind of its defect."""
    found = json.loads((place.suite / "defects.json").read_text())
    return {int(row): kind for row, kind in found.items()}

"""Every way of choosing rows, by name: `score/rule`, or a control's name.

Scores and rules are the product's own. `quota` is the quota that `select` chooses for the calibrated score on this
pool; rivals get the very same one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import Candidates, find_candidates, ranking_values
from delta_attnmask.selecting.quotas import MIX_COLUMNS, distortion
from delta_attnmask.selecting.rules import make_rule
from delta_attnmask.selecting.run_selection import read_embeddings, select_from_run
from delta_attnmask.selecting.selector import select_rows
from delta_attnmask.selecting.similarity import CLUSTER, default_clusters, with_clusters
from delta_attnmask.selecting.strata import strata_of
from delta_attnmask.settings import PRESETS, MaskSettings
from delta_attnmask.statistics import auroc

from .workplace import Workplace

Rows = NDArray[np.int64]
RIVALS = ("low_loss", "el2n", "image_gain", "ifd", "irs", "mid_perplexity", "long_answer")


@dataclass(frozen=True)
class ScoredPool:
    """The pool's scores, of which `chosen` is the calibrated one, and the defects that nobody but this code knows."""

    place: Workplace
    scores: pa.Table
    chosen: str
    kind_of: dict[int, str]
    mask: MaskSettings = field(default_factory=MaskSettings)  # of the calibrated score

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def kinds(self) -> NDArray[np.str_]:
        """Each row's defect, "" for good rows."""
        return np.array([self.kind_of.get(row, "") for row in range(len(self))])

    @cached_property
    def quota(self) -> tuple[str, ...]:
        """The columns of the quota that `select` takes by itself at 20 %."""
        return select_from_run(RunFolder.open(self.place.scored), "20%").quota_by

    def values(self, score: str) -> NDArray[np.float64]:
        """A score of every row; NaN or infinite where a row can't be kept."""
        return ranking_values(self.scores, self.chosen if score == "chosen" else score)

    def pick(self, method: str, budget: float, seed: int) -> Rows:
        """The rows that a method keeps of the pool at a budget, a share."""
        n_keep = round(budget * len(self))
        rng = np.random.default_rng(1000 + seed)
        if method == "full":
            return np.arange(len(self))
        if method == "random":
            return rng.permutation(len(self))[:n_keep]
        if method == "oracle":
            good = np.flatnonzero(self.kinds == "")
            return rng.permutation(good)[:n_keep]
        if method == "diversity":
            return self._diverse(n_keep, seed)
        return self._select(method, n_keep)

    def _select(self, method: str, n_keep: int) -> Rows:
        score, _, rule = method.partition("/")
        column = self.chosen if score == "chosen" else score
        if rule == "select":
            run = {"chosen": self.place.scored, "own": self.place.of_other}[score]
            return select_again(run, n_keep)
        columns = {"top": (), "quota": self.quota, "source": ("source",), "source-answer": MIX_COLUMNS}[rule]
        n_possible = len(find_candidates(self.scores, column))
        given = {"rule": "quota", "quota_by": columns} if columns else {"rule": "top"}
        return select_rows(self.scores, min(n_keep, n_possible), by=column, **given).indices

    def _diverse(self, n_keep: int, seed: int) -> Rows:
        """The same number of every cluster of embeddings, at random: no score."""
        folder = RunFolder.open(self.place.scored)
        values = np.random.default_rng(seed).random(len(self))
        candidates = with_clusters(
            Candidates(values, self.scores, np.arange(len(self)), lambda rows: read_embeddings(folder, rows)),
            default_clusters(len(self)),
            seed,
        )
        return make_rule("quota", {"quota_by": (CLUSTER,), "temperature": 100.0}).choose(candidates, n_keep).positions

    def mix_distortion(self, picks: Rows) -> float:
        """Total variation distance of the picks' mix of sources and answer types from the pool's."""
        return distortion(strata_of(self.scores, MIX_COLUMNS), picks)

    def separation(self, score: str) -> dict[str, float]:
        """AUROC of good rows above defective ones: pooled, mean within sources, and by kind within sources."""
        values = self.values(score)
        is_good, sources = self.kinds == "", np.array(self.scores["source"].to_pylist())
        within = [
            auroc(values[is_good & (sources == s)], values[~is_good & (sources == s)]) for s in np.unique(sources)
        ]
        by_kind = {
            str(kind): float(np.mean([
                auroc(values[is_good & (sources == s)], values[(self.kinds == kind) & (sources == s)])
                for s in np.unique(sources[self.kinds == kind])
            ]))
            for kind in np.unique(self.kinds) if kind
        }  # fmt: skip
        return {"pooled": auroc(values[is_good], values[~is_good]), "within": float(np.mean(within)), **by_kind}


def read_pool(place: Workplace) -> ScoredPool:
    """The scores with the paper's delta and the random tokens' score as columns."""
    folder = RunFolder.open(place.scored)
    scores = folder.read_scores()
    chosen = str(folder.manifest.settings["form"])
    forms = {
        "paper": (place.paper, PRESETS["paper"].form),
        "relative": (place.relative, PRESETS["relative"].form),
        "random_tokens": (place.random_tokens, chosen),
    }
    for name, (run, form) in forms.items():
        values = ranking_values(RunFolder.open(run).read_scores(), form)
        scores = scores.append_column(name, pa.array(values, pa.float64()))
    if scores["row"].to_pylist() != list(range(len(scores))):
        raise ValueError("the scores aren't in the pool's order")
    settings = folder.manifest.settings
    mask = MaskSettings(**{name: settings[name] for name in MaskSettings().to_dict()})
    return ScoredPool(place, scores, chosen, read_defects(place), mask)


def select_again(run: Path, n_keep: int) -> Rows:
    """What `select` keeps of a run."""
    return select_from_run(RunFolder.open(run), n_keep).indices


def read_unscored_pool(place: Workplace) -> ScoredPool:
    """The pool before any scoring: enough for random and defect-free picks."""
    sources = [entry["source"] for entry in json.loads((place.suite / "pool.json").read_text())]
    table = pa.table({"source": sources, "answer_type": [""] * len(sources)})
    return ScoredPool(place, table, "", read_defects(place))


def read_defects(place: Workplace) -> dict[int, str]:
    """Row -> kind of its planted defect."""
    found = json.loads((place.suite / "defects.json").read_text())
    return {int(row): kind for row, kind in found.items()}

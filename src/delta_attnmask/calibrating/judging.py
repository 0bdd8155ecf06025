"""The choice of a score: ways to rank, what each lets through of defects that it never saw, and which is taken.

No torch here; scikit-learn fits the judges.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.calibrating.planting import N_FOLDS, Planted
from delta_attnmask.calibrating.scored import FORMS, Scored
from delta_attnmask.calibration import Candidate
from delta_attnmask.judge import P_GOOD, Feature, Judge
from delta_attnmask.settings import MaskSettings
from delta_attnmask.statistics import Values, auroc, copies_kept

RULE = """\
Four ways to rank the rows: a judge, which is a logistic model of the loss, margin, entropy, EL2N and image share of one
forward; low loss; a judge that also reads one Δ; and one Δ, which is a mask setting with a form.

1. A way's value is the share of planted copies among the fifth that it ranks highest, where originals and copies of one
   kind of defect are equally many, divided by that of chance; the mean over the kinds. Each kind is ranked by what was
   chosen or learned without this kind, and by a judge that didn't learn from these rows either.
2. The first of them wins that is within one standard error of the lowest value (jackknife over ten groups of
   originals): Δ, which costs more, has to add something, and the judge comes before low loss, which costs the same,
   because its picks repeat themselves and it gives a probability.
3. The mask setting is the one of the highest mean AUROC over the kinds: of so many settings the one with the fewest
   copies in its highest fifth would be chosen by chance. Without Δ nothing is masked: one forward serves."""

FEATURES = ("loss", "margin", "entropy", "el2n", "image_share")  # of the forward without a mask
STRENGTH = 0.02  # the inverse of the L2 penalty, as in scikit-learn; features that are so alike need a strong one
UNMASKED = MaskSettings(fraction=0)  # one forward, no Δ

JUDGE, LOW_LOSS, JUDGE_WITH_DELTA, DELTA = PREFERENCE = ("judge", "low_loss", "judge_with_delta", "delta")
JUDGE_WITH_RANDOM = "judge_with_random_delta"  # a control

Rows = NDArray[np.bool_]


def jackknife_error(values: Sequence[float]) -> float:
    """The standard error of a figure, from its values without each group in turn."""
    return float(np.sqrt((len(values) - 1) * np.var(values)))


@dataclass(frozen=True)
class Way:
    """A way to rank. held_out: by kind of defect, the values of all records as ranked without knowing this kind.

    values: those without knowing the record itself, all kinds known; NaN where a record has none.
    """

    name: str
    held_out: Mapping[str, Values]
    values: Values


@dataclass(frozen=True)
class Choice:
    """What ranks the rows: the column `form` under `settings`, and the judge that gives it, if it is one."""

    way: Way
    form: str
    settings: MaskSettings
    judge: Judge | None

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.form, None if self.settings == UNMASKED else self.settings)


class Trial:
    """Ways to rank planted records, compared. kinds: those that are measured."""

    def __init__(self, planted: Planted, scored: Scored, kinds: Sequence[str]) -> None:
        self.scored, self.kinds = scored, list(kinds)
        self.original, self.kind = np.array(planted.original), np.array(planted.kind)
        self.fold, self.is_original = np.array(planted.fold), np.array(planted.kind) == ""
        self._is_usable = np.isfinite(scored.loss) & (self.is_original | np.isin(self.kind, self.kinds))

    @cached_property
    def ways(self) -> list[Way]:
        """All ways that the scores suffice for, in the order of preference; the control last."""
        low = -self.scored.loss
        ways = {LOW_LOSS: Way(LOW_LOSS, dict.fromkeys(self.kinds, low), low)}
        if can_judge := set(FEATURES) <= self.scored.stored.keys():
            ways[JUDGE] = self._judged(JUDGE, lambda kinds: None)
        if self._deltas:
            values = self.scored.values
            held_out = {kind: values[self.best_delta(self._others(kind))] for kind in self.kinds}
            ways[DELTA] = Way(DELTA, held_out, values[self.best_delta(self.kinds)])
        if self._deltas and can_judge:
            ways[JUDGE_WITH_DELTA] = self._judged(JUDGE_WITH_DELTA, self._setting)
            if self._random_like(self.setting) is not None:
                ways[JUDGE_WITH_RANDOM] = self._judged(
                    JUDGE_WITH_RANDOM, lambda kinds: self._random_like(self._setting(kinds))
                )
        return [ways[name] for name in (*PREFERENCE, JUDGE_WITH_RANDOM) if name in ways]

    @property
    def setting(self) -> MaskSettings:
        """The mask setting of the best Δ."""
        return self._setting(self.kinds)

    def setting_of(self, way: Way) -> MaskSettings | None:
        """The mask setting of a way that could be chosen; None for one that reads no Δ."""
        return self.setting if way.name in (DELTA, JUDGE_WITH_DELTA) else None

    def _setting(self, kinds: Sequence[str]) -> MaskSettings:
        """The mask setting that is best on these kinds."""
        setting = self.scored.candidates[self.best_delta(kinds)].settings
        assert setting is not None
        return setting

    def best_delta(self, kinds: Sequence[str]) -> int:
        """The candidate of Δ that sees these kinds best by mean AUROC; of equal ones that of the shortest tail."""
        found = {index: float(np.mean([self._aurocs[index][kind] for kind in kinds])) for index in self._deltas}
        return max(found, key=lambda index: (found[index], -self.scored.candidates[index].tail))

    def choose(self) -> Choice:
        """The first way within one standard error of the best, learned from all records."""
        ways = [way for way in self.ways if way.name != JUDGE_WITH_RANDOM]
        best = min(ways, key=self.value)
        way = next(way for way in ways if self.value(way) - self.value(best) <= self.standard_error(way, best))
        if way.name == LOW_LOSS:
            return Choice(way, LOW_LOSS, UNMASKED, None)
        if way.name == DELTA:
            return Choice(way, self.scored.candidates[self.best_delta(self.kinds)].form, self.setting, None)
        return Choice(way, P_GOOD, self.setting_of(way) or UNMASKED, self.judge_of(way))

    def value(self, way: Way, groups: Rows | None = None) -> float:
        """Planted copies in the highest fifth relative to chance, mean over the kinds. groups: records that count."""
        return float(np.mean([self.kept(way.held_out[kind], kind, groups) for kind in self.kinds]))

    def mean_auroc(self, way: Way, groups: Rows | None = None) -> float:
        """The mean over the kinds. groups: records that count."""
        return float(np.mean([auroc(*self.pairs(way.held_out[kind], kind, groups)) for kind in self.kinds]))

    def standard_error(self, way: Way, other: Way | None = None) -> float:
        """Of a way's value, or of its difference to another's: the jackknife over the groups of originals."""
        groups = [self.fold != fold for fold in range(N_FOLDS)]
        values = [self.value(way, group) - (self.value(other, group) if other else 0.0) for group in groups]
        return jackknife_error(values)

    def aurocs_without_each_group(self, way: Way) -> list[float]:
        """The mean AUROC of a way without the originals of each group in turn. [N_FOLDS]"""
        return [self.mean_auroc(way, self.fold != fold) for fold in range(N_FOLDS)]

    def kept(self, values: Values, kind: str, groups: Rows | None = None) -> float:
        return copies_kept(*self.pairs(values, kind, groups))

    def pairs(self, values: Values, kind: str, groups: Rows | None = None) -> tuple[Values, Values]:
        """The values of the copies' originals, and of the copies of a kind."""
        is_copy = (self.kind == kind) & self._is_usable & self._is_usable[self.original]
        copies = np.flatnonzero(is_copy if groups is None else is_copy & groups)
        return values[self.original[copies]], values[copies]

    # Δ

    @cached_property
    def _deltas(self) -> list[int]:
        """The candidates of Δ that could be chosen: no controls, and a value for every kind."""
        return [
            index
            for index, candidate in enumerate(self.scored.candidates)
            if candidate.settings is not None and not candidate.is_control
            if not any(np.isnan(self._aurocs[index][kind]) for kind in self.kinds)
        ]

    @cached_property
    def _aurocs(self) -> list[dict[str, float]]:
        """By candidate and kind: the AUROC of originals above copies."""
        return [{kind: auroc(*self.pairs(values, kind)) for kind in self.kinds} for values in self.scored.values]

    def _random_like(self, setting: MaskSettings) -> MaskSettings | None:
        """The control of random tokens at a setting's block."""
        found = [c.settings for c in self.scored.candidates if c.settings is not None and c.settings.order == "random"]
        return next((control for control in found if control.block == setting.block), None)

    # Judges

    def _judged(self, name: str, setting_of: Callable[[Sequence[str]], MaskSettings | None]) -> Way:
        """A judge's values, from fits that saw neither the record's group of originals nor, held out, the kind.

        setting_of: gives the mask setting that suits some kinds; None for a judge that reads no Δ.
        """
        held_out = {kind: self._cross_fitted(setting_of(self._others(kind)), self._others(kind)) for kind in self.kinds}
        return Way(name, held_out, self._cross_fitted(setting_of(self.kinds), self.kinds))

    def _others(self, kind: str) -> list[str]:
        """The other kinds; all where there is but one."""
        return [other for other in self.kinds if other != kind] or self.kinds

    def _cross_fitted(self, setting: MaskSettings | None, kinds: Sequence[str]) -> Values:
        columns, found = self._columns(setting), np.full(len(self.kind), np.nan)
        learn_from = self.is_original | np.isin(self.kind, kinds)
        for fold in range(N_FOLDS):
            own = self.fold == fold
            judge = self._fit(setting, learn_from & ~own)
            found[own] = judge.p_good({name: columns[name][own] for name in judge.columns}.__getitem__)
        return np.where(self._is_usable, found, np.nan)

    def _fit(self, setting: MaskSettings | None, learn_from: Rows) -> Judge:
        """learn_from: the records; each kind of defect counts alike, and all together as much as the originals."""
        from sklearn.linear_model import LogisticRegression

        learn = learn_from & self._is_usable
        columns = self._columns(setting)
        names = (*FEATURES, *(() if setting is None else FORMS))
        features = [Feature.of(name, columns[name][learn]) for name in names]
        table = np.stack([feature.normal(columns[feature.column][learn]) for feature in features], axis=1)
        model = LogisticRegression(C=STRENGTH).fit(table, self.is_original[learn], self._weights(learn))
        weighted = [replace(feature, weight=float(w)) for feature, w in zip(features, model.coef_[0], strict=True)]
        return Judge(tuple(weighted), float(model.intercept_[0]))

    def _weights(self, learn: Rows) -> Values:
        kinds, codes, counts = np.unique(self.kind[learn], return_inverse=True, return_counts=True)
        share = np.where(kinds == "", 0.5, 0.5 / max(1, len(kinds) - 1))
        weights: Values = (share / counts)[codes] * learn.sum()
        return weights

    def judge_of(self, way: Way) -> Judge | None:
        """The judge of a way that could be chosen, learned from all records; None for a way without one.

        Its odds are stretched so that they hold for records that it hadn't seen (Platt).
        """
        if way.name not in (JUDGE, JUDGE_WITH_DELTA):
            return None
        judge, (slope, shift) = self._fit(self.setting_of(way), self._is_usable), self._platt(way)
        features = tuple(replace(one, weight=one.weight * slope) for one in judge.features)
        return Judge(features, judge.intercept * slope + shift)

    def column_of(self, way: Way) -> Values:
        """What the column that a way ranks by comes to for each record, learned without it."""
        if way.name not in (JUDGE, JUDGE_WITH_DELTA):
            return way.values
        slope, shift = self._platt(way)
        values: Values = 1 / (1 + np.exp(-(slope * _log_odds(way.values) + shift)))
        return values

    def _platt(self, way: Way) -> tuple[float, float]:
        """Slope and shift by which a judge's odds hold for records that it hadn't seen."""
        from sklearn.linear_model import LogisticRegression

        known = self._is_usable
        model = LogisticRegression(C=1e6)
        model.fit(_log_odds(way.values[known])[:, None], self.is_original[known], self._weights(known))
        return float(model.coef_[0, 0]), float(model.intercept_[0])

    def _columns(self, setting: MaskSettings | None) -> dict[str, Values]:
        """The columns of all records by name; those of Δ under the setting."""
        own = {
            candidate.form: values
            for candidate, values in zip(self.scored.candidates, self.scored.values, strict=True)
            if setting is not None and candidate.settings == setting
        }
        return dict(self.scored.stored) | own


def _log_odds(chance: Values) -> Values:
    odds: Values = np.log(chance / (1 - chance))
    return odds

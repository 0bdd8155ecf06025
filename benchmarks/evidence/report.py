"""From the CSV to a table, plots and the figures that docs/evidence.md tells."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .jobs import MAIN, METHODS, read_lines
from .methods import RIVALS, ScoredPool, read_pool
from .plots import draw_budgets, draw_methods
from .training import AUGMENTATIONS
from .workplace import Workplace

Line = dict[str, str]
RESAMPLES = 2000


@dataclass(frozen=True)
class Results:
    """The CSV's lines."""

    lines: list[Line]

    def values(
        self,
        method: str,
        column: str = "em_mean",
        *,
        group: str = "methods",
        budget: float = 0.2,
        accounting: str = "epochs",
    ) -> NDArray[np.float64]:
        """A column over the seeds, in the order of the seeds."""
        budget = {"none": 0.0, "full": 1.0}.get(method, budget) if group != "augmentation" else budget
        wanted = {"group": group, "method": method, "budget": str(budget), "accounting": accounting}
        found = [line for line in self.lines if all(line[name] == value for name, value in wanted.items())]
        chosen = sorted((line for line in found if line[column] != ""), key=lambda line: int(line["seed"]))
        return np.array([float(line[column]) for line in chosen])

    @property
    def sources(self) -> list[str]:
        return [
            name.removeprefix("em_")
            for name in self.lines[0]
            if name.startswith("em_") and name[3:] not in ("mean", "shift")
        ]

    def share_of_gain(self, method: str, group: str = "methods", budget: float = 0.2) -> tuple[float, float, float]:
        """(method - random) / (oracle - random) of the means, with a 95 % interval that resamples seeds."""
        ours, low, high = (self.values(name, group=group, budget=budget) for name in (method, "random", "oracle"))
        if not min(map(len, (ours, low, high))):
            return (np.nan,) * 3
        rng = np.random.default_rng(0)
        drawn = [[rng.choice(values, len(values)).mean() for values in (ours, low, high)] for _ in range(RESAMPLES)]
        shares = [(a - b) / (c - b) for a, b, c in drawn if c > b]
        if not shares:
            return (np.nan,) * 3
        plain = (ours.mean() - low.mean()) / (high.mean() - low.mean())
        return float(plain), *map(float, np.quantile(shares, [0.025, 0.975]))

    def worst_source(self, method: str, group: str = "methods", budget: float = 0.2) -> tuple[str, float]:
        """The source where a method is farthest below random at the same budget, and by how much."""
        gaps = {
            source: self.values(method, f"em_{source}", group=group, budget=budget).mean()
            - self.values("random", f"em_{source}", group=group, budget=budget).mean()
            for source in self.sources
        }
        worst = min(gaps, key=lambda source: gaps[source])
        return worst, float(gaps[worst])


def interval(values: NDArray[np.float64]) -> float:
    """Half the width of the 95 % interval of the mean by Student's t; NaN for fewer than two values."""
    return float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)) if len(values) > 1 else float("nan")


def shown(values: NDArray[np.float64]) -> str:
    """The mean with its interval."""
    if not len(values):
        return "–"
    return f"{values.mean():.3f} ± {interval(values):.3f}" if len(values) > 1 else f"{values.mean():.3f}"


def write_report(place: Workplace) -> None:
    """results.md and the plots."""
    results = Results(read_lines(place.results))
    pool = read_pool(place)
    machine = json.loads((place.home / "machine.json").read_text())
    parts = [header(place, machine, pool), methods_table(results), source_table(results), budget_table(results)]
    parts += [augmentation_table(results), transfer_table(results), auroc_table(pool), overlap_table(pool)]
    parts += [speed(results, machine["scoring_s"])]
    (place.home / "results.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    draw_methods(results, place.home / "methods.svg")
    draw_budgets(results, place.home / "budgets.svg")
    print(f"Wrote {place.home / 'results.md'}")


def header(place: Workplace, machine: dict[str, object], pool: ScoredPool) -> str:
    """What made the figures, on what."""
    suite = json.loads((place.suite / "suite.json").read_text())
    quota = " × ".join(pool.quota) or "none"
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "transformers"))
    lines = [
        f"Made by `{machine['command']}` at commit {machine['commit']}",
        f"on {machine['n_cores']} × {machine['processor']} ({machine['device']}); {versions}.",
        f"Suite {suite['fingerprint']}: {suite['rows']} rows, {(pool.kinds != '').mean():.1%} of the pool defective.",
        f"Recipe, chosen on the validation split for random picks: {machine['recipe']}.",
        f"Calibrated score: {pool.chosen}; the quota that `select` chooses: {quota}.",
        "Every figure is the mean over seeds with its 95 % interval (Student's t).",
    ]
    return "\n".join(lines)


def table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """A markdown table under a heading."""
    lines = [f"## {title}", "", "| " + " | ".join(columns) + " |", "|---|" + "---|" * (len(columns) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def methods_table(results: Results) -> str:
    """Every method at 20 %, best first."""
    names = [name for name in ("none", "full", *METHODS) if len(results.values(name))]
    names.sort(key=lambda name: -results.values(name).mean())
    rows = []
    for name in names:
        worst, gap = results.worst_source(name)
        rows.append([
            name, str(len(results.values(name))), shown(results.values(name)), shown_share(results.share_of_gain(name)),
            f"{worst} {gap:+.3f}", shown(results.values(name, "em_shift")),
            mean_of(results.values(name, "defects"), ".1%"), mean_of(results.values(name, "distortion"), ".3f"),
        ])  # fmt: skip
    same = results.values("full", accounting="steps")
    if len(same):
        rows.append(["full pool, as many steps as 20 %", str(len(same)), shown(same), "", "", "", "", ""])
    columns = ["picks", "seeds", "exact match", "share of the oracle's gain", "worst source against random"]
    columns += ["new style", "defects kept", "distortion"]
    return table("20 % of the pool", columns, rows)


def shown_share(share: tuple[float, float, float]) -> str:
    """A share of the oracle's gain with its interval; a dash where the oracle gains nothing."""
    return "–" if np.isnan(share[0]) else f"{share[0]:+.2f} ({share[1]:+.2f} to {share[2]:+.2f})"


def mean_of(values: NDArray[np.float64], form: str) -> str:
    return format(values.mean(), form) if len(values) else "–"


def source_table(results: Results) -> str:
    """Exact match by source for the main methods."""
    names = [*("none", "full"), *MAIN, "chosen/top", "paper/top", "low_loss/top"]
    rows = [[name, *(shown(results.values(name, f"em_{source}")) for source in results.sources)] for name in names]
    return table("By source, 20 %", ["picks", *results.sources], rows)


def budget_table(results: Results) -> str:
    """The main methods at every budget."""
    found = {float(line["budget"]) for line in results.lines if line["group"] == "methods" and line["method"] in MAIN}
    budgets = sorted(found)
    rows = [[name, *(shown(results.values(name, budget=budget)) for budget in budgets)] for name in MAIN]
    return table("By budget", ["picks", *(f"{budget:.0%}" for budget in budgets)], rows)


def augmentation_table(results: Results) -> str:
    """The six ways to train on the calibrated 20 %."""
    found = {name: results.values(name, group="augmentation") for name in AUGMENTATIONS}
    rows = [
        [name, str(len(values)), shown(values), shown(results.values(name, "em_shift", group="augmentation"))]
        for name, values in found.items()
        if len(values)
    ]
    title = "Augmentation of the calibrated 20 %, the same number of steps"
    return table(title, ["augmentation", "seeds", "exact match", "new style"], rows) if rows else ""


def transfer_table(results: Results) -> str:
    """The other base, trained on what the base selected."""
    found = {name: results.values(name, group="transfer") for name in ("none", *MAIN)}
    rows = [
        [name, str(len(values)), shown(values), shown_share(results.share_of_gain(name, "transfer"))]
        for name, values in found.items()
        if len(values)
    ]
    columns = ["picks", "seeds", "exact match", "share of the oracle's gain"]
    return table("Selected with the base, trained: another base", columns, rows) if rows else ""


def auroc_table(pool: ScoredPool) -> str:
    """How well each score tells good rows from defective ones, by kind."""
    found = {score: pool.separation(score) for score in ("chosen", "paper", "random_tokens", *RIVALS)}
    names = list(found["chosen"])
    rows = [[score, *(f"{values[name]:.2f}" for name in names)] for score, values in found.items()]
    return table("AUROC, good rows above defective ones", ["score", *names], rows)


def overlap_table(pool: ScoredPool) -> str:
    """Shared rows over all rows of two methods' picks at 20 %."""
    names = [
        "chosen/select",
        "chosen/top",
        *(f"{score}/quota" for score in ("low_loss", "random_tokens", "image_gain")),
    ]
    picks = {name: set(pool.pick(name, 0.2, 0).tolist()) for name in [*names, "paper/quota"]}
    rows = [
        [one, *(f"{len(picks[one] & picks[two]) / len(picks[one] | picks[two]):.2f}" for two in picks)] for one in picks
    ]
    return table("Overlap of picks (Jaccard)", ["", *picks], rows)


def speed(results: Results, scoring_s: dict[str, float]) -> str:
    """Scoring counted: how much sooner the full pool's accuracy is reached."""
    full, took = results.values("full"), results.values("full", "seconds")
    if not len(full):
        return ""
    once = scoring_s["calibrate"] + scoring_s["score"]
    rows = []
    for budget in (0.05, 0.1, 0.2, 0.4):
        ours = results.values("chosen/select", budget=budget)
        if len(ours):
            seconds = results.values("chosen/select", "seconds", budget=budget).mean()
            reached = "yes" if ours.mean() >= full.mean() else "no"
            faster, net = took.mean() / seconds, took.mean() / (seconds + once)
            rows.append([f"{budget:.0%}", shown(ours), reached, f"{seconds:.1f} s", f"{faster:.1f}x", f"{net:.2f}x"])
    columns = ["`select` keeps", "exact match", "reaches the full pool", "training", "faster", "with scoring counted"]
    told = (
        f"Calibrating took {scoring_s['calibrate']} s and scoring {scoring_s['score']} s, once. The full pool trains "
    )
    return table("Time", columns, rows) + f"\n\n{told}{took.mean():.1f} s to {full.mean():.3f}."

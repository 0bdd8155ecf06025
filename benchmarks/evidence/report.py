"""From the CSV to a table, plots and the figures that RESULTS.md reports."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from .jobs import AT_BUDGETS, MAIN, METHODS, TRANSFERRED, read_lines
from .methods import RIVALS, ScoredPool, read_pool, select_again
from .plots import draw_budgets, draw_methods
from .results import Results, Run
from .scoring import N_START, SEEDS
from .training import AUGMENTATIONS
from .workplace import Workplace

HEADLINE = "chosen/select"  # named beforehand: what `select` does by itself after a calibration
AGAINST = (
    "none", "random", "full", "oracle", "low_loss/quota", "random_tokens/quota", "relative/quota", "paper/quota",
)  # fmt: skip


def shown(values: NDArray[np.float64]) -> str:
    """The mean, with the standard deviation over seeds."""
    if not len(values):
        return "–"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values.mean():.3f}"


def signed(found: tuple[float, float, float], form: str = "+.3f") -> str:
    """A difference or share with its interval; a dash where there is none."""
    return "–" if np.isnan(found[0]) else f"{found[0]:{form}} ({found[1]:{form}} to {found[2]:{form}})"


def write_report(place: Workplace) -> None:
    """results.md and the plots."""
    test = json.loads((place.suite / "test.json").read_text())
    results = Results(read_lines(place.results), [entry["source"] for entry in test])
    pool = read_pool(place)
    machine = json.loads((place.home / "machine.json").read_text())
    parts = [header(place, machine, pool), headline_table(results)]
    parts += [methods_table(results), source_table(results)]
    parts += [mix_table(pool), budget_table(results), augmentation_table(results), transfer_table(results)]
    parts += [
        auroc_table(pool),
        overlap_table(pool),
        repeat_table(pool),
        speed(results, machine["scoring_s"], len(pool)),
    ]
    (place.home / "results.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    draw_methods(results, place.home / "methods.svg")
    draw_budgets(results, place.home / "budgets.svg")
    print(f"Wrote {place.home / 'results.md'}")


def header(place: Workplace, machine: dict[str, object], pool: ScoredPool) -> str:
    """What made the figures, on what."""
    suite = json.loads((place.suite / "suite.json").read_text())
    quota, defective = " × ".join(pool.quota) or "none", (pool.kinds != "").mean()
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "transformers"))
    lines = [
        f"Made by `{machine['command']}` at commit {machine['commit']}",
        f"on {machine['n_cores']} × {machine['processor']} ({machine['device']}); {versions}.",
        f"Suite {suite['fingerprint']}: {suite['rows']} rows, {defective:.1%} of the pool defective.",
        f"Recipe, chosen on the validation split by defect-free picks: {machine['recipe']}.",
        f"Calibrated score: {pool.chosen}; the quota that `select` chooses: {quota}.",
        "± is the standard deviation over seeds; brackets are 95 % intervals of a bootstrap over test rows (within",
        "sources) and seeds, paired: every method sees the same resampled rows.",
    ]
    return "\n".join(lines)


def table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    """A markdown table under a heading."""
    lines = [f"## {title}", "", "| " + " | ".join(columns) + " |", "|---|" + "---|" * (len(columns) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def headline_table(results: Results) -> str:
    """What `select` does by itself against everything else, at 20 %."""
    rows = [[name, signed(results.difference(HEADLINE, name))] for name in AGAINST if len(results.values(name))]
    return table(f"`{HEADLINE}` minus …, exact match at 20 %", ["picks", "difference"], rows)


def methods_table(results: Results) -> str:
    """Every method at 20 %, best first; the order is the test set's, so that the first is a winner among many."""
    names = [name for name in ("none", "full", *METHODS) if len(results.values(name))]
    names.sort(key=lambda name: -results.values(name).mean())
    rows = []
    for name in names:
        worst, *gap = results.worst_source(name, "random")
        rows.append([
            name, str(len(results.values(name))), shown(results.values(name)),
            signed(results.difference(name, "random")),
            signed(results.share_of_gain(name, "random", "oracle"), "+.2f"),
            f"{worst} {signed((gap[0], gap[1], gap[2]))}",
            shown(results.values(name, "em_shift")), mean_of(results.values(name, "defects"), ".1%"),
            mean_of(results.values(name, "distortion"), ".3f"),
        ])  # fmt: skip
    same = results.values(Run("full", accounting="steps"))
    if len(same):
        rows.append(["full pool, as many steps as 20 %", str(len(same)), shown(same), *[""] * 6])
    columns = ["picks", "seeds", "exact match", "minus random", "share of the oracle's gain"]
    columns += ["worst source against random", "new style", "defects kept", "distortion"]
    return table("20 % of the pool", columns, rows)


def mean_of(values: NDArray[np.float64], form: str) -> str:
    return format(values.mean(), form) if len(values) else "–"


def source_table(results: Results) -> str:
    """Exact match by source for the main methods."""
    names = [*("none", "full"), *MAIN, "chosen/top", "paper/top", "low_loss/top"]
    rows = [[name, *(shown(results.values(name, f"em_{source}")) for source in results.sources)] for name in names]
    return table("By source, 20 %", ["picks", *results.sources], rows)


def mix_table(pool: ScoredPool) -> str:
    """The share of each source in the picks of the main methods at 20 %."""
    sources = np.array(pool.scores["source"].to_pylist())
    names = np.unique(sources)
    rows = [
        [method, *(f"{(sources[pool.pick(method, 0.2, 0)] == name).mean():.1%}" for name in names)]
        for method in ("full", "random", HEADLINE, "chosen/top", "low_loss/quota", "low_loss/top", "paper/top")
    ]
    return table("Mix of sources kept at 20 %", ["picks", *map(str, names)], rows)


def budget_table(results: Results) -> str:
    """The main methods at every budget, under both accountings."""
    budgets = sorted({float(line["budget"]) for line in results.lines if line["method"] == HEADLINE})
    rows = []
    for accounting, told in (("epochs", "the same epochs"), ("steps", "the steps of 20 %")):
        for name in AT_BUDGETS:
            runs = [
                Run(name, budget=budget, accounting="epochs" if budget == 0.2 else accounting) for budget in budgets
            ]
            found = [results.values(run) for run in runs]
            if sum(map(bool, map(len, found))) > 1:
                rows.append([f"{name}, {told}", *map(shown, found)])
    return table("By budget", ["picks", *(f"{budget:.0%}" for budget in budgets)], rows)


def augmentation_table(results: Results) -> str:
    """The ways to train on the calibrated 20 %."""
    runs = {name: Run(name, "augmentation") for name in AUGMENTATIONS}
    rows = [
        [name, str(len(results.values(run))), shown(results.values(run)),
         "" if name == "none" else signed(results.difference(run, runs["none"])),
         shown(results.values(run, "em_shift"))]
        for name, run in runs.items()
        if len(results.values(run))
    ]  # fmt: skip
    title = "Augmentation of the calibrated 20 %, the same number of steps"
    return table(title, ["augmentation", "seeds", "exact match", "minus none", "new style"], rows) if rows else ""


def transfer_table(results: Results) -> str:
    """The other base, trained on what the base selected."""
    runs = {name: Run(name, "transfer") for name in ("none", "full", *TRANSFERRED)}
    rows = [
        [name, str(len(results.values(run))), shown(results.values(run)),
         signed(results.difference(run, runs["random"])),
         signed(results.share_of_gain(run, runs["random"], runs["oracle"]), "+.2f")]
        for name, run in runs.items()
        if len(results.values(run))
    ]  # fmt: skip
    columns = ["picks", "seeds", "exact match", "minus random", "share of the oracle's gain"]
    return table("Selected with the base, trained: another base", columns, rows) if rows else ""


def auroc_table(pool: ScoredPool) -> str:
    """How well each score tells good rows from defective ones, by kind."""
    found = {score: pool.separation(score) for score in ("chosen", "relative", "paper", "random_tokens", *RIVALS)}
    names = list(found["chosen"])
    rows = [[score, *(f"{values[name]:.2f}" for name in names)] for score, values in found.items()]
    return table("AUROC, good rows above defective ones; kinds within sources", ["score", *names], rows)


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


def repeat_table(pool: ScoredPool) -> str:
    """How much of what `select` keeps depends on the calibration's sample and on the model."""
    ours = set(pool.pick(HEADLINE, 0.2, 0).tolist())
    runs = {f"calibrated on sample {seed}": pool.place.of_seed(seed) for seed in SEEDS}
    if pool.place.other and pool.place.of_other.exists():
        runs["selected with the other base"] = pool.place.of_other
    rows = []
    for name, run in runs.items():
        theirs = set(select_again(run, len(ours)).tolist())
        report = json.loads((run / "calibration.json").read_text())
        setting = ", ".join(f"{key} {value}" for key, value in report["settings"].items())
        rows.append([name, f"{len(ours & theirs) / len(ours | theirs):.2f}", f"{report['form']}: {setting}"])
    return table("The same picks again? (Jaccard, 20 %)", ["", "shared", "chosen"], rows)


def speed(results: Results, scoring_s: dict[str, float], n_rows: int) -> str:
    """Scoring counted: how much sooner the full pool's accuracy is reached, here and by projection to more rows."""
    full = results.values("full")
    if not len(full):
        return ""
    score_s = (scoring_s["score"] - scoring_s["start"]) / (n_rows - N_START)
    fixed_s = scoring_s["calibrate"] + scoring_s["start"]
    rows = []
    for budget in (0.05, 0.1, 0.2, 0.4):
        run = Run(HEADLINE, budget=budget)
        if len(results.values(run)):
            ours, whole = (_training_s(results, one) for one in (run, "full"))
            reached = "yes" if results.values(run).mean() >= full.mean() else "no"
            net = [whole * n / (ours * n + score_s * n_rows * n + fixed_s) for n in (1, 10, 1e6)]
            rows.append([f"{budget:.0%}", shown(results.values(run)), reached, f"{ours:.1f} s", f"{whole / ours:.1f}x"])
            rows[-1] += [f"{one:.2f}x" for one in net]
    columns = ["`select` keeps", "exact match", "reaches the full pool", "training", "faster"]
    columns += ["with scoring counted", "10 x the rows", "very many rows"]
    told = (
        f"Training the full pool takes {_training_s(results, 'full'):.1f} s to {full.mean():.3f}, the vision tower "
        f"counted in every epoch as in a training that doesn't cache it. Scoring takes {1000 * score_s:.1f} ms a row, "
        f"and {fixed_s:.1f} s once for the start and the calibration; the projections keep both."
    )
    return table("Time", columns, rows) + f"\n\n{told}"


def _training_s(results: Results, run: Run | str) -> float:
    return float((results.values(run, "seconds") + results.values(run, "tower_s")).mean())

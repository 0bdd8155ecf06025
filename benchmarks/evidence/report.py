"""From the CSV, and what made it, to RESULTS-*.md beside it: nothing is trained or scored.

python -m benchmarks.evidence.report benchmarks/evidence/judge.csv
python -m benchmarks.evidence.report benchmarks/evidence/judge.csv --minus select random --minus judge/quota none
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jobs import BUDGETS, CORE, METHODS, core_of_rounds, read_lines
from .results import Results, Run
from .scoring import ROUNDS
from .training import AUGMENTATIONS
from .workplace import read_records

HEADLINES = ("select", "low_loss/quota", "judge/quota", "judge/trusted", "delta/quota", *core_of_rounds(1))
PAIRS = (
    ("judge/quota", "low_loss/quota"), ("delta/quota", "low_loss/quota"), ("judge_with_delta/quota", "judge/quota"),
    ("delta/quota", "old/quota"), ("judge/trusted", "judge/quota"), ("low_loss/trusted", "low_loss/quota"),
    ("judge/quota-mix", "judge/quota"), ("delta/quota-mix", "delta/quota"),
    ("judge/quota", "judge/top"), ("rounds1_low_loss/quota", "low_loss/quota"), ("rounds1_judge/quota", "judge/quota"),
    ("rounds1_delta/quota", "delta/quota"), ("rounds1_delta/quota", "rounds1_low_loss/quota"),
    ("rounds1_chosen/trusted", "rounds1_chosen/quota"), ("rounds2_chosen/quota", "rounds1_chosen/quota"),
)  # fmt: skip
LEGEND = """\
# Evidence: the judge and the rounds

Exact match on the test set, mean over its sources. ± is the standard deviation over seeds. Brackets are 95 % intervals
of a bootstrap over test rows (within sources) and seeds, paired: every method sees the same resampled rows. Picks are
named score/rule as `benchmarks/evidence/methods.py` says; "quota" and "trusted" are by source for all alike. `select`
is what the command keeps by itself after a calibration. "Defects" is the share of rows with a known defect among those
kept, which nothing but this report reads; AUROC is that of the score on them. Share is the part of what the defect-free
picks (oracle) gain over random ones; a dash where the oracle's gain isn't above 0 in 99 % of the resamples."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument(
        "--minus", nargs=2, action="append", metavar=("ONE", "OTHER"), help="print a difference at 20 %%"
    )
    options = parser.parse_args()
    for name, (results, _) in read_results(options.csv).items():
        for one, other in options.minus or ():
            print(f"{name}: {one} minus {other}: {signed(results.difference(one, other))}")
    if not options.minus:
        write_report(options.csv)


def read_results(path: Path) -> dict[str, tuple[Results, Mapping[str, Any]]]:
    """By base and pool: what the trainings came to, and what made them."""
    records, lines = read_records(path.with_suffix(".json")), read_lines(path)
    found = {}
    for name, made in sorted(records.items()):
        own = [line for line in lines if f"{line['base']}/{line['pool']}" == name]
        sources = [source for source, n in dict(made["test"]).items() for _ in range(n)]  # type: ignore[call-overload]
        if own:
            found[name] = Results(own, sources), made
    return found


def write_report(path: Path) -> Path:
    """RESULTS-NAME.md beside NAME.csv."""
    found = read_results(path)
    parts = [LEGEND, overview({name: results for name, (results, _) in found.items()})]
    for name, (results, made) in found.items():
        parts += [part for part in sections(name, results, made) if part]
    target = path.with_name(f"RESULTS-{path.stem}.md")
    target.write_text("\n\n".join(parts) + "\n")
    print(f"Wrote {target}")
    return target


def sections(name: str, results: Results, made: Mapping[str, Any]) -> Iterator[str]:
    """Everything about one base and pool."""
    yield f"## {name}"
    yield header(made)
    yield methods_table(results)
    yield pairs_table(results)
    yield budget_table(results)
    yield augmentation_table(results)
    yield auroc_table(made)
    yield time_table(results, made)


def overview(found: Mapping[str, Results]) -> str:
    """Of each base and pool: the controls, and the headlines' gain over random with their share of the oracle's."""
    controls = ("none", "random", "oracle", "full-steps", "full")
    rows = []
    for name, results in found.items():
        rows.append([name, *(shown(results.values(run)) for run in controls)])
    titles = ["base/pool", "untouched", "random", "oracle", "full, equal steps", "full, five times the steps"]
    parts = ["## In short", table("Without a score", titles, rows)]
    names = [name for name in HEADLINES if any(len(results.values(name)) for results in found.values())]
    for title, control in (("random", "random"), ("the untouched base", "none"), ("full, equal steps", "full-steps")):
        rows = [
            [name, *(signed(results.difference(method, control)) for method in names)]
            for name, results in found.items()
        ]
        parts.append(table(f"20 %, minus {title}", ["base/pool", *names], rows))
    rows = [
        [name, *(signed(results.share_of_gain(method, "random", "oracle"), "+.2f") for method in names)]
        for name, results in found.items()
    ]
    parts.append(table("20 %, share of the oracle's gain over random", ["base/pool", *names], rows))
    return "\n\n".join(parts)


def header(made: Mapping[str, Any]) -> str:
    """What made the figures, on what."""
    machine = made["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "transformers"))
    place = f"{machine['n_cores']} × {machine['processor']} ({machine['device']})"
    base = ", ".join(f"{name} {value}" for name, value in made["taught"].items())
    suite = ", ".join(f"{rows} in {split}" for split, rows in made["rows"].items())
    lines = [
        f"- `python -m benchmarks.evidence {made['options']}` at commit {machine['commit']}, {place}, {versions}",
        f"- Base {made['base']}: {base or 'how it was taught is not known'}",
        f"- Suite {made['suite']}: {suite}; {made['defects']:.1%} of the pool with a known defect",
        f"- Recipe: {', '.join(f'{name} {value}' for name, value in made['recipe'].items())}",
    ]
    for rounds, one in made["calibrations"].items():
        kept = ", ".join(f"{way} {value:.2f}" for way, value in one["copies_kept"].items())
        lines.append(
            f"- Calibration, {rounds} rounds: ranks by {one['form']}, {'with' if one['masks'] else 'without'} a mask; "
            f"planted copies kept by {kept}; {one['verdict']}. Mask of Δ: {one['best_mask']}."
        )
        gains = [f"{each['gain']:+.2f} ± {each['standard_error']:.2f}" for each in one.get("rounds", ())]
        lines[-1] += f" What each round gains by that measure: {', '.join(gains)}." if gains else ""
    return "\n".join(lines)


def methods_table(results: Results) -> str:
    """Every method at 20 %, best first; the order is the test set's, so that the first is a winner among many."""
    names = [name for name in ("none", "full", "full-steps", *METHODS) if len(results.values(name))]
    names.sort(key=lambda name: -results.values(name).mean())
    rows = [
        [
            name, str(len(results.values(name))),
            shown(results.values(name)), signed(results.difference(name, "random")),
            signed(results.share_of_gain(name, "random", "oracle"), "+.2f"), worst_source(results, name),
            shown(results.values(name, "em_shift")), mean_of(results.values(name, "defects"), ".1%"),
            mean_of(results.values(name, "distortion"), ".3f"), mean_of(results.values(name, "auroc"), ".3f"),
        ]
        for name in names
    ]  # fmt: skip
    columns = ["picks", "seeds", "exact match", "minus random", "share", "worst source against random"]
    return table("20 % of the pool", [*columns, "new style", "defects", "distortion", "AUROC"], rows)


def worst_source(results: Results, method: str) -> str:
    if not len(results.values("random")):
        return "–"
    name, *gap = results.worst_source(method, "random")
    return f"{name} {signed((gap[0], gap[1], gap[2]))}"


def pairs_table(results: Results) -> str:
    """What the judge, Δ, the rules and the rounds add, each against its nearest neighbour."""
    rows = [[f"{one} minus {other}", signed(results.difference(one, other))] for one, other in PAIRS]
    return table("What each step adds", ["picks at 20 %", "difference"], [row for row in rows if row[1] != "–"])


def budget_table(results: Results) -> str:
    """The main methods at every budget, under both accountings."""
    budgets, rows = sorted((*BUDGETS, 0.2)), []
    for accounting, meaning in (("epochs", "the same epochs"), ("steps", "the steps of 20 %")):
        for name in (*CORE, *core_of_rounds(1), *core_of_rounds(2)):
            runs = [Run(name, at, "epochs" if at == 0.2 else accounting) for at in budgets]
            found = [results.values(run) for run in runs]
            if sum(map(bool, map(len, found))) > 1:
                rows.append([f"{name}, {meaning}", *map(shown, found)])
    return table("By budget", ["picks", *(f"{at:.0%}" for at in budgets)], rows)


def augmentation_table(results: Results) -> str:
    """The ways to train on what `select` keeps."""
    plain = Run("select+none")
    runs = [Run(f"select+{name}") for name in AUGMENTATIONS]
    rows = [
        [run.method, shown(results.values(run)), signed(results.difference(run, plain))]
        for run in runs
        if len(results.values(run))
    ]
    return table("Augmentation, the same number of steps", ["training", "exact match", "minus none"], rows)


def auroc_table(made: Mapping[str, Any]) -> str:
    """How well each score separates good rows from defective ones."""
    kinds = list(next(iter(made["auroc"].values()), {}))
    rows = [[score, *(f"{found[kind]:.3f}" for kind in kinds)] for score, found in made["auroc"].items()]
    return table("AUROC, good rows above defective ones; kinds within sources", ["score", *kinds], rows)


def time_table(results: Results, made: Mapping[str, Any]) -> str:
    """Scoring counted: seconds until a fifth is trained, against the full pool with five times the steps."""
    whole, full = training_s(results, Run("full")), results.values("full")
    rows = []
    for name, n in {"select": 0, **{f"rounds{n}_chosen/quota": n for n in ROUNDS.values()}}.items():
        ours, values = training_s(results, Run(name)), results.values(name)
        if len(values) and len(full):
            scoring = made["scoring_s"][f"calibrate_{n}"] + made["scoring_s"][f"score_{n}"]
            reached = "yes" if values.mean() >= full.mean() else "no"
            seconds = [f"{scoring:.0f} s", f"{ours:.0f} s", f"{whole:.0f} s", f"{whole / (ours + scoring):.2f}x"]
            rows.append([name, shown(values), reached, *seconds])
    columns = ["picks", "exact match", "reaches the full pool", "calibrating and scoring", "training", "full pool"]
    return table("Time, the vision tower counted in every epoch", [*columns, "faster"], rows)


def training_s(results: Results, run: Run) -> float:
    if not len(results.values(run)):
        return np.nan
    return float((results.values(run, "seconds") + results.values(run, "tower_s")).mean())


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table under a heading; nothing where there are no rows."""
    if not rows:
        return ""
    lines = [f"### {title}", "", "| " + " | ".join(columns) + " |", "|---|" + "---|" * (len(columns) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def shown(values: NDArray[np.float64]) -> str:
    """The mean, with the standard deviation over seeds."""
    if not len(values):
        return "–"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if len(values) > 1 else f"{values.mean():.3f}"


def mean_of(values: NDArray[np.float64], form: str) -> str:
    return format(values.mean(), form) if len(values) else "–"


def signed(found: tuple[float, float, float], form: str = "+.3f") -> str:
    """A difference or share with its interval; a dash where there is none."""
    return "–" if np.isnan(found[0]) else f"{found[0]:{form}} ({found[1]:{form}} to {found[2]:{form}})"


if __name__ == "__main__":
    main()

"""`delta-attnmask audit`: what a score correlates with, and what a selection by it does to the data."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from delta_attnmask.auditing.run_audit import audit_run
from delta_attnmask.cli.options import Json, SelectionOptions, TrainingCost
from delta_attnmask.cli.terminal import print_table, printable
from delta_attnmask.runs import RunFolder
from delta_attnmask.storage import write_text_atomically

_SHOWN = 12  # rows of a table; the JSON has all


def audit(
    run: Path,
    /,
    *,
    selection: SelectionOptions = SelectionOptions(),
    against: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    cost: TrainingCost = TrainingCost(),
    json_file: Json = None,
) -> None:
    """Say what a run's score correlates with, what selecting by it does to the data, and whether that pays.

    Args:
        run: Run folder that `score` wrote.
        against: Further runs of the same data, such as with another seed, dtype or model, to compare with.
    """
    folder = RunFolder.open(run)
    chosen = selection.read(folder)
    others = {str(path): RunFolder.open(path) for path in against or ()}
    report = audit_run(folder, chosen, others=others, train_rate=cost.train_rate, epochs=cost.epochs)
    if json_file is not None:
        write_text_atomically(json_file, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    options = report["options"].get("quota_by")
    by = f"{report['column']}, rule {report['rule']}{' by ' + ' and '.join(options) if options else ''}"
    print(printable(f"{report['n_kept']:,} of {report['n_candidates']:,} rows kept by {by}"))
    _print_score(report)
    _print_mix(report["mix"])
    _print_overlaps(report["overlap"])
    _print_defects(report["defects"])
    print_costs(report["costs"])
    for warning in report["warnings"]:
        print(printable(f"WARNING: {warning}"))


def _print_score(report: dict[str, Any]) -> None:
    correlations = {**report["correlations"], "share of its rank variance between sources": report["between_sources"]}
    rows = [(name, "-" if value is None else value) for name, value in correlations.items()]
    print_table(f"Rank correlation of {report['column']} with", ["trait", "spearman"], rows)
    lines = [(one["name"] or "(none)", one["n_rows"], one["mean"], one["sd"]) for one in report["sources"][:_SHOWN]]
    print_table(f"{report['column']} by source", ["source", "rows", "mean", "sd"], lines)


def _print_mix(mix: dict[str, dict[str, Any]]) -> None:
    lines = [
        (name, one["n_strata"], one["n_strata_lost"], one["distortion"], one["distortion_by_chance"])
        for name, one in mix.items()
    ]
    print_table("What the selection does to the mix", ["mix", "values", "lost", "distortion", "by chance"], lines)
    for name, one in mix.items():
        if one["n_strata"] > 1 and one["distortion"] > one["distortion_by_chance"]:
            rows = [(each["name"], f"{each['before']:.1%}", f"{each['after']:.1%}") for each in one["largest"]]
            print_table(f"Largest changes by {name}", [name, "before", "after"], rows)


def _print_overlaps(overlap: dict[str, Any]) -> None:
    lines: list[tuple[object, ...]] = [("random rows (expected)", f"{overlap['random']:.1%}", "-")]
    for group in ("columns", "settings", "runs"):
        found = [(name, one) for name, one in overlap[group].items() if one is not None]
        found.sort(key=lambda pair: -pair[1]["overlap"])
        lines += [(name, f"{one['overlap']:.1%}", _or_dash(one["spearman"])) for name, one in found[: 2 * _SHOWN]]
    print_table("Kept as well by the same rule with", ["score", "overlap", "spearman"], lines)


def _print_defects(defects: dict[str, Any] | None) -> None:
    if defects is None:
        print("Expected defects: not known without a calibration of this column and quota")
        return
    lines = [(share, f"{expected:.1%}") for share, expected in defects["expected"].items()]
    print_table(
        f"Expected defects, if they are like the planted ones ({defects['planted_ratio']:.2f} of chance)",
        ["in the pool", "in the kept rows"],
        lines,
    )


def print_costs(costs: dict[str, Any] | None) -> None:
    """What scoring costs at each budget against what it saves."""
    if costs is None:
        print("Costs: this run doesn't know how long it took")
        return
    title = f"Scoring {costs['rows_per_s']:g} rows/s, {costs['scoring_s']:,.0f} s"
    title += f" after {costs['calibration_s']:,.0f} s of calibration" if costs["calibration_s"] else ""
    if costs["train_rate"]:
        columns = ["keep", "rows", "training on all, s", "on the kept, s", "saved in all, s"]
        keys = ["n_kept", "training_all_s", "training_kept_s", "saved_s"]
        title += f"; training {costs['train_rate']:g} rows/s, {costs['epochs']:g} epochs"
    else:
        columns, keys = ["keep", "rows", "pays where training is slower than, rows/s"], ["n_kept", "pays_below"]
    lines = [(f"{one['keep']:.0%}", *(one[key] for key in keys)) for one in costs["budgets"]]
    print_table(title, columns, lines)


def _or_dash(value: float | None) -> object:
    return "-" if value is None else value

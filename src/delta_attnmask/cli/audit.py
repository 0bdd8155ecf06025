"""`delta-attnmask audit`: what a score correlates with, and what a selection by it does to the data."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from delta_attnmask.auditing.run_audit import audit_run
from delta_attnmask.cli.options import Force, Json, SelectionOptions, TrainingCost, claim_json, write_json
from delta_attnmask.cli.terminal import print_table, printable
from delta_attnmask.exporting.run_export import inputs_of
from delta_attnmask.runs import RunFolder

_SHOWN = 24  # rows of a table; the JSON has all


def audit(
    run: Path,
    /,
    *,
    selection: SelectionOptions = SelectionOptions(),
    against: Annotated[list[Path] | None, Parameter(consume_multiple=True)] = None,
    cost: TrainingCost = TrainingCost(),
    json_file: Json = None,
    force: Force = False,
) -> None:
    """Show what a run's score correlates with, what selecting by it does to the data, and whether that pays.

    Args:
        run: Run folder that `score` wrote.
        against: Further runs of the same data, such as with another seed, dtype or model, to compare with.
    """
    folder = RunFolder.open(run)
    claim_json(json_file, inputs_of(folder), force=force)
    chosen = selection.read(folder)
    others = {str(path): RunFolder.open(path) for path in against or ()}
    report = audit_run(folder, chosen, others=others, train_rate=cost.train_rate, epochs=cost.epochs)
    write_json(json_file, report)
    _print_report(report)


def _print_report(report: dict[str, Any]) -> None:
    column, options = report["column"], report["options"].get("quota_by")
    by = f"{column}, rule {report['rule']}{' by ' + ' and '.join(options) if options else ''}"
    print(printable(f"{report['n_kept']:,} of {report['n_candidates']:,} rows kept by {by}"))
    correlations = {**report["correlations"], "share of its rank variance between sources": report["between_sources"]}
    print_table(f"Rank correlation of {column} with", ["trait", "spearman"], correlations.items())
    print_table(
        f"{column} by source",
        ["source", "rows", "mean", "sd"],
        [(one["name"] or "(none)", one["n_rows"], one["mean"], one["sd"]) for one in report["sources"][:_SHOWN]],
    )
    print_table(
        "What the selection does to the mix",
        ["mix", "values", "lost", "distortion", "by chance"],
        [
            (name, one["n_strata"], one["n_strata_lost"], one["distortion"], one["distortion_by_chance"])
            for name, one in report["mix"].items()
        ],
    )
    for name, one in report["mix"].items():
        if one["n_strata"] > 1 and one["distortion"] > one["distortion_by_chance"]:
            rows = [(each["name"], f"{each['before']:.1%}", f"{each['after']:.1%}") for each in one["largest"]]
            print_table(f"Largest changes by {name}", [name, "before", "after"], rows)
    overlap = report["overlap"]
    lines: list[tuple[object, ...]] = [("random rows (expected)", f"{overlap['random']:.1%}", None)]
    for group in ("columns", "settings", "runs"):
        found = sorted(overlap[group].items(), key=lambda pair: -pair[1]["overlap"])
        lines += [(name, f"{one['overlap']:.1%}", one["spearman"]) for name, one in found[:_SHOWN]]
    print_table("Also kept by the same rule with", ["score", "overlap", "spearman"], lines)
    if (defects := report["defects"]) is None:
        print("Expected defects: not known without a calibration of this column and quota")
    else:
        title = f"Expected defects, if they are like the planted ones ({defects['planted_ratio']:.2f} of chance)"
        expected = [(share, f"{kept:.1%}") for share, kept in defects["expected"].items()]
        print_table(title, ["in the pool", "in the kept rows"], expected)
    print_costs(report["costs"])
    for warning in report["warnings"]:
        print(printable(f"WARNING: {warning}"))


def print_costs(costs: dict[str, Any] | None) -> None:
    """What scoring costs at each budget against what it saves."""
    if costs is None:
        print("Costs: this run has no timings")
        return
    title = f"Scoring {costs['rows_per_s']:g} rows/s, {costs['scoring_s']:,.0f} s"
    title += f" after {costs['calibration_s']:,.0f} s of calibration" if costs["calibration_s"] else ""
    columns = {"rows": "n_kept", "pays where training is slower than, rows/s": "pays_below"}
    if costs["train_rate"]:
        title += f"; training {costs['train_rate']:g} rows/s, {costs['epochs']:g} epochs"
        columns |= {"training on all, s": "training_all_s", "on the kept, s": "training_kept_s"}
        columns["saved in all, s"] = "saved_s"
    lines = [(f"{one['keep']:.0%}", *(one[key] for key in columns.values())) for one in costs["budgets"]]
    print_table(title, ["keep", *columns], lines)

"""`delta-attnmask select`: write the best rows of a scored data set."""

from dataclasses import asdict, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from delta_attnmask.cli.export import print_converted
from delta_attnmask.cli.options import RULES, Force, RunDataOptions, Strict
from delta_attnmask.cli.terminal import print_table, print_verdict, printable
from delta_attnmask.exporting.run_export import export_selection, open_scored
from delta_attnmask.reading.copies import find_copies
from delta_attnmask.reading.formats import TargetName
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.note import Order
from delta_attnmask.selecting.rules import all_rules
from delta_attnmask.selecting.run_selection import select_from_run

_RULE_HELP = (
    "auto: quotas, unless the calibration shows that they cost more than they preserve; "
    + "; ".join(f"{name}: {rule.help}" for name, rule in all_rules().items())
    + "."
)


def _make_rule_options() -> type:
    """A dataclass of the options of all rules, none of them given; each rule's file says what its own are."""
    options: dict[str, tuple[Any, list[str]]] = {}
    for name, rule in all_rules().items():
        for one in fields(rule):
            default = "" if one.default is None else f"; by default {one.default}"
            text = f"With the rule {name}: {one.metadata['help']}{default}."
            options.setdefault(one.name, (str if one.metadata["read"] else one.type, []))[1].append(text)
    del options["quota_by"]  # which `auto` chooses as well
    typed = [
        (name, Annotated[kind | None, Parameter(help=" ".join(helps))], field(default=None))
        for name, (kind, helps) in options.items()
    ]
    return make_dataclass("RuleOptions", typed, namespace={"__module__": __name__})


if TYPE_CHECKING:
    RuleOptions = Any
else:
    RuleOptions = _make_rule_options()


def select(
    run: Path,
    /,
    *,
    keep: str,
    out: Path,
    by: str | None = None,
    rule: Annotated[str, Parameter(help=_RULE_HELP)] = "auto",
    quota_by: str = "auto",
    rule_options: Annotated[RuleOptions | None, Parameter(name="*", group=RULES)] = None,
    clusters: int | None = None,
    drop_duplicates: bool = False,
    near_duplicates: float | None = None,
    order: Order = "input",
    to: TargetName | None = None,
    moved: RunDataOptions = RunDataOptions(),
    force: Force = False,
    strict: Strict = False,
) -> int:
    """Write the best rows of a scored data set, in the input's own format or a trainer's.

    Failed rows are never kept. Beside FILE, FILE.selection.json says what was kept and why.

    Args:
        run: Run folder that `score` wrote.
        keep: A share of the rows that have a score, such as 20%, or a number of rows, such as 500.
        out: File to write; a folder if the data are several files and --to isn't given.
        by: Column to rank by, stored or derived; higher is better. By default the one that the run was scored for.
        quota_by: Columns whose values jointly make the strata, such as source,answer_type; auto chooses by a rule that
            the note states. The column cluster is computed from the embeddings.
        clusters: With --quota-by cluster: how many; by default one for every 200 rows, at most 256.
        drop_duplicates: Leave out copies of better rows: the same conversation about images of the same bytes, whatever
            the ids. Reads the data.
        near_duplicates: Leave out rows too whose embedding has such a cosine, say 0.95, with that of a better row of
            the same source.
        order: Order of the rows in the file: as in the input, or the best first.
        to: Format to write, with what the trainer needs to find it; by default the input's own, unchanged. The
            file's name ends in .json for llava and llama-factory, .jsonl for messages and ms-swift, .parquet for trl
            and parquet, and .tar for webdataset.
    """
    folder = RunFolder.open(run)
    selection = select_from_run(
        folder,
        keep,
        by=by,
        rule=rule,
        quota_by=quota_by,
        clusters=clusters,
        drop_duplicates=find_copies(open_scored(folder, moved.place)) if drop_duplicates else False,
        near_duplicates=near_duplicates,
        **({} if rule_options is None else asdict(rule_options)),
    )
    note, done = export_selection(selection, folder, out, place=moved.place, order=order, to=to, force=force)
    report = selection.report
    strata = f", quota by {' and '.join(selection.quota_by)}" if selection.quota_by else ""
    print_table(
        f"Kept {len(selection):,} of {report['n_rows']:,} rows by {selection.column}{strata}",
        ["source", "kept", "left", "failed"],
        [(name or "(none)", *rows.values()) for name, rows in report["sources"].items()],
    )
    if left_out := report["sources_left_out"]:
        names = ", ".join(name or "(none)" for name in left_out)
        print(printable(f"WARNING: no row is kept of these sources: {names}; --min-per-stratum 1 keeps one of each"))
    for what, name in (("Duplicates", "n_duplicates"), ("Near duplicates", "n_near_duplicates")):
        if name in report:
            print(f"{what} left out: {report[name]:,}")
    print(
        f"Distortion of the mix of sources and answer types: {report['distortion']:.3f} "
        f"(0 none, 1 complete; by chance {report['distortion_by_chance']:.3f})"
    )
    for warning in report["warnings"]:
        print(f"WARNING: {warning}")
    print(f"Wrote {out} and {note}")
    print_converted(done)
    return print_verdict(report, strict=strict)

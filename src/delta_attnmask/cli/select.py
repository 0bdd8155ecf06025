"""`delta-attnmask select`: write the best rows of a scored data set."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.cli.export import print_converted
from delta_attnmask.cli.tables import print_table
from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.export import Place, export_selection
from delta_attnmask.exporting.targets import TargetName
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.selecting.note import Order, count_sources
from delta_attnmask.selecting.plan import Options, RuleName, plan_selection
from delta_attnmask.selection import Selection


def select(
    run: Path,
    /,
    *,
    keep: str,
    out: Path,
    by: str | None = None,
    rule: RuleName = "auto",
    quota_by: str = "auto",
    temperature: float = 1.0,
    min_per_stratum: int = 0,
    skip_top: str = "0%",
    pool: float | None = None,
    clusters: int | None = None,
    drop_duplicates: float | None = None,
    order: Order = "input",
    to: TargetName | None = None,
    data: Path | None = None,
    images: Path | None = None,
    allow_outside: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write the best rows of a scored data set, in the input's own format or a trainer's.

    Failed rows are never kept. Beside FILE, FILE.selection.json says what was kept and why.

    Parameters
    ----------
    run
        Folder that `delta-attnmask score --out` has made.
    keep
        How much: a share of the rows that have a score, such as 20%, or a number of rows, such as 500.
    out
        File to write; a folder if the data are several files and --to isn't given.
    by
        Column to rank by, stored or derived; higher is better. If not given, the form that the run was scored for.
    rule
        auto: quotas, unless the calibration shows that they cost more than they hold; quota: the highest of each
        stratum; top: the highest; band: the highest below the top --skip-top; diverse: the most different ones among
        the highest (needs embeddings). The plain top skews the mix of the data.
    quota_by
        Columns whose values jointly make the strata, such as source,answer_type; auto chooses by a rule that the
        note states. The column cluster is made of the embeddings.
    temperature
        1 keeps each stratum's share of the rows, larger evens the shares out.
    min_per_stratum
        Rows that every stratum keeps, or all that it has.
    skip_top
        Share to leave out at the very top, such as 2%: of each stratum, or of all rows with --rule band (there 2% if
        not given).
    pool
        With --rule diverse: how many times the budget to choose from; 2 if not given.
    clusters
        With --quota-by cluster: how many; one for 200 rows if not given, 256 at most.
    drop_duplicates
        Leave out rows that say what a better one says: 1 for rows of the same bytes, or a cosine such as 0.95 for rows
        with nearly the same embedding too.
    order
        Order of the rows in the file: as in the input, or the best first.
    to
        Format to write, with what the trainer needs to find it; if not given, the input's own, unchanged. The file's
        name ends in .json for llava and llama-factory, .jsonl for messages and ms-swift, .parquet for trl and parquet,
        and .tar for webdataset.
    data
        The input, if it is no longer where it was scored.
    images
        The image folder, if it is no longer where it was; only --to needs it.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    """
    columns = () if quota_by == "auto" else tuple(name.strip() for name in quota_by.split(","))
    options = Options(
        rule, columns, temperature, min_per_stratum, parse_share(skip_top), pool, clusters, drop_duplicates
    )
    folder = RunFolder.open(run)
    plan = plan_selection(folder, keep, by, options)
    place = Place(data, images, ImageLimits(allow_outside=allow_outside))
    note, done = export_selection(plan.selection, folder, plan.scores, out, place=place, order=order, to=to)
    _print_outcome(plan.selection, count_sources(plan.selection, plan.scores), folder.manifest.n_rows)
    print(f"Wrote {out} and {note}")
    print_converted(done)


def parse_share(text: str) -> float:
    """Read `2%`; also `0%`."""
    try:
        share = Fraction(text.strip().removesuffix("%")) / 100
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not text.strip().endswith("%") or not 0 <= share < 1:
        raise SettingsError(f"skip_top={text!r}: expected a share such as 2%, from 0% to below 100%")
    return float(share)


def _print_outcome(selection: Selection, counts: dict[str, dict[str, int]], n_rows: int) -> None:
    details = selection.details
    columns = selection.options.get("columns")
    strata = f", quota by {' and '.join(columns)}" if columns else ""
    print_table(
        f"Kept {len(selection):,} of {n_rows:,} rows by {selection.column}{strata}",
        ["source", "kept", "left", "failed"],
        [(name or "(none)", *counts[name].values()) for name in counts],
    )
    print(
        f"Distortion of the mix of sources and answer types: {details['distortion']:.3f} "
        f"(0 none, 1 complete; by chance {details['distortion_by_chance']:.3f})"
    )
    for warning in details["warnings"]:
        print(f"WARNING: {warning}")

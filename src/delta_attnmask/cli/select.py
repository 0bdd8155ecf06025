"""`delta-attnmask select`: write the best rows of a scored data set."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.cli.tables import print_table
from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.auto import Calibrated, choose_columns, read_calibrated
from delta_attnmask.selecting.columns import stored_columns
from delta_attnmask.selecting.export import export_selection
from delta_attnmask.selecting.mix import MIX_COLUMNS, chance_distortion, distortion
from delta_attnmask.selecting.note import Order, count_sources
from delta_attnmask.selecting.rules import Candidates
from delta_attnmask.selecting.select import find_candidates, select_candidates
from delta_attnmask.selecting.strata import candidate_strata
from delta_attnmask.selection import Budget, Selection

Rule = Literal["auto", "top", "quota", "band"]

_BAND_SKIPS = 0.02
_ALWAYS = ("row", "status", "source", "question", "answer_type")


def select(
    run: Path,
    /,
    *,
    keep: str,
    out: Path,
    by: str | None = None,
    rule: Rule = "auto",
    quota_by: str = "auto",
    temperature: float = 1.0,
    min_per_stratum: int = 0,
    skip_top: str = "0%",
    order: Order = "input",
    data: Path | None = None,
) -> None:
    """Write the best rows of a scored data set, in the input's own format.

    Failed rows are never kept. Beside FILE, FILE.selection.json says what was kept and why.

    Parameters
    ----------
    run
        Folder that `delta-attnmask score --out` has made.
    keep
        How much: a share of the rows that have a score, such as 20%, or a number of rows, such as 500.
    out
        File to write.
    by
        Column to rank by, stored or derived; higher is better. If not given, the form that the run was scored for.
    rule
        auto: quotas, unless the calibration shows that they cost more than they hold; quota: the highest of each
        stratum; top: the highest; band: the highest below the top --skip-top. The plain top skews the mix of the data.
    quota_by
        Columns whose values jointly make the strata, such as source,answer_type; auto chooses by a rule that the
        note states.
    temperature
        1 keeps each stratum's share of the rows, larger evens the shares out.
    min_per_stratum
        Rows that every stratum keeps, or all that it has.
    skip_top
        Share to leave out at the very top, such as 2%: of each stratum, or of all rows with --rule band (there 2% if
        not given).
    order
        Order of the rows in the file: as in the input, or the best first.
    data
        The input file, if it is no longer where it was scored.
    """
    columns = () if quota_by == "auto" else tuple(name.strip() for name in quota_by.split(","))
    options = Options(rule, columns, temperature, min_per_stratum, parse_share(skip_top))
    folder = RunFolder.open(run)
    plan = plan_selection(folder, keep, by, options)
    note = export_selection(plan.selection, folder, plan.scores, out, data=data, order=order)
    _print_outcome(plan.selection, count_sources(plan.selection, plan.scores), folder.manifest.n_rows)
    print(f"Wrote {out} and {note}")


@dataclass(frozen=True)
class Options:
    """What was asked for; columns is () for auto."""

    rule: Rule = "auto"
    columns: tuple[str, ...] = ()
    temperature: float = 1.0
    min_per_stratum: int = 0
    skip_top: float = 0.0

    @property
    def shapes_strata(self) -> bool:
        return self.temperature != 1 or self.min_per_stratum != 0


@dataclass(frozen=True)
class Plan:
    """A selection with the scores that it was made of, as far as they were read."""

    selection: Selection
    scores: pa.Table


def plan_selection(folder: RunFolder, keep: str, by: str | None = None, options: Options = Options()) -> Plan:
    """Select from a run; by: None for the form that the run was scored for. Nothing is written."""
    budget, calibrated = Budget.parse(keep), read_calibrated(folder.path)
    column = by or str(folder.manifest.settings.get("form", "delta"))
    wanted = [*_ALWAYS, *options.columns, *sorted(stored_columns(column, folder.schema))]
    scores = folder.read_scores(list(dict.fromkeys(wanted)), encoded=True)
    candidates = find_candidates(scores, column)
    selection = _select(candidates, budget, column, options, calibrated)
    return Plan(_with_context(selection, candidates, calibrated), scores)


def parse_share(text: str) -> float:
    """Read `2%`; also `0%`."""
    try:
        share = Fraction(text.strip().removesuffix("%")) / 100
    except (ValueError, ZeroDivisionError):
        share = Fraction(-1)
    if not text.strip().endswith("%") or not 0 <= share < 1:
        raise SettingsError(f"skip_top={text!r}: expected a share such as 2%, from 0% to below 100%")
    return float(share)


def _select(
    candidates: Candidates, budget: Budget, column: str, options: Options, calibrated: Calibrated | None
) -> Selection:
    """The selection by the named rule, or by the default one with the choice of its quota in the details."""
    rule, columns, chosen = options.rule, options.columns, {}
    if rule in ("auto", "quota") and not columns:
        share = budget.resolve(len(candidates)) / len(candidates)
        ratios = calibrated.planted_ratio if calibrated and calibrated.form == column else {}
        found = choose_columns(candidates, share, ratios, needs_quota=rule == "quota" or options.shapes_strata)
        columns, chosen = found.columns, {"quota_choice": found.details}
    if rule == "auto":
        rule = "quota" if columns else "band" if options.skip_top else "top"
    selection = select_candidates(candidates, budget, column=column, rule=rule, **_told(rule, columns, options))
    return replace(selection, details=selection.details | chosen)


def _told(rule: Rule, columns: tuple[str, ...], options: Options) -> dict[str, Any]:
    """What the rule is told; SettingsError for options that it would silently drop."""
    if rule == "quota":
        return {
            "columns": columns,
            "temperature": options.temperature,
            "min_per_stratum": options.min_per_stratum,
            "skip_top": options.skip_top,
        }
    if columns or options.shapes_strata:
        raise SettingsError(f"rule={rule!r} has no strata; leave --quota-by, --temperature and --min-per-stratum out")
    if rule == "band":
        return {"skip_top": options.skip_top or _BAND_SKIPS}
    if options.skip_top:
        raise SettingsError("rule='top' leaves nothing out; use --rule band with --skip-top")
    return {}


def _with_context(selection: Selection, candidates: Candidates, calibrated: Calibrated | None) -> Selection:
    """The selection with what it does to the mix, and what the calibration warned of."""
    mix = candidate_strata(candidates, MIX_COLUMNS)
    rows = candidates.table["row"].to_numpy()
    rows = rows if candidates.positions is None else rows[candidates.positions]
    found = {
        "distortion": round(distortion(mix, rows.searchsorted(selection.rows)), 4),
        "distortion_by_chance": round(chance_distortion(mix, len(selection)), 4),
        "warnings": list(calibrated.warnings) if calibrated else [],
    }
    return replace(selection, details=selection.details | found)


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

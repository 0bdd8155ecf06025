"""The sections of the report: charts with their tables, and what they are for. No torch here."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.reading.faults import generalise
from delta_attnmask.reporting.calibration_figures import Findings, kinds_chart, tables_of
from delta_attnmask.reporting.drawing import label
from delta_attnmask.reporting.page import Section
from delta_attnmask.reporting.selection_charts import distribution, mix_chart
from delta_attnmask.reporting.standing import Standing
from delta_attnmask.reporting.words import (
    name_form,
    name_settings,
    write_number,
    write_seconds,
    write_share,
)

_MAX_REASONS = 50


def selection_sections(
    standing: Standing, audit: Mapping[str, Any], findings: Findings | None, *, is_covered: bool
) -> Iterator[Section]:
    """What the selection does, and what the calibration says of it.

    is_covered: whether the findings are of the very score that ranks the rows.
    """
    yield Section(
        "score",
        "Where the cut falls",
        "What is kept is decided by the score and by the quotas. If the score rises or falls with something that has "
        "nothing to do with quality, such as length, so does the selection.",
        [distribution(standing)],
        [
            (
                "What the score rises or falls with (rank correlation; near ±1, it is the same order)",
                ("trait of a row", "rank correlation"),
                list(audit["correlations"].items()),
            )
        ],
    )
    yield _mix_section(standing, audit["mix"])
    if findings is not None:
        yield calibration_section(findings, is_covered=is_covered)
    yield from _overlap_section(audit["overlap"], audit["column"])


def calibration_section(findings: Findings, *, is_covered: bool) -> Section:
    of_another = "" if is_covered else f"These figures are of {findings.chosen}, not of the score that ranks the rows. "
    return Section(
        "calibration",
        "What the score can and can't see",
        f"{of_another}Defects were planted in copies of your own rows, and every score was asked which is the copy. "
        "The setting was chosen on one half of the rows; the numbers come from the other half.",
        [kinds_chart(findings)],
        tables_of(findings),
    )


def failure_section(scores: pa.Table) -> Iterator[Section]:
    """Failed rows by their reason, names and numbers aside; nothing if no row failed."""
    if reasons := count_reasons(scores):
        n_failed = sum(n_rows for _, n_rows, _ in reasons)
        rows = [(reason, n_rows, label(example, 200)) for reason, n_rows, example in reasons[:_MAX_REASONS]]
        yield Section(
            "failed",
            "Failed rows",
            f"{n_failed:,} of {len(scores):,} rows could not be scored, and are never kept.",
            [],
            [("Failed rows by reason, without names and numbers", ("reason", "rows", "example"), rows)],
        )


def cost_section(found: Mapping[str, Any], n_rows: int) -> Section:
    """What scoring took, and for some budgets the speed of training below which it pays."""
    shown = ("training_all_s", "training_kept_s", "saved_s") if found["train_rate"] else ()
    titles = ("training on all", "training on the kept", "saved in all")[: len(shown)]
    rows = [
        (write_share(one["keep"]), one["n_kept"], one["pays_below"], *(write_seconds(one[name]) for name in shown))
        for one in found["budgets"]
    ]
    pace = f"{write_seconds(found['scoring_s'])} at {write_number(found['rows_per_s'])} rows a second"
    calibration = f", after {write_seconds(found['calibration_s'])} of calibration" if found["calibration_s"] else ""
    return Section(
        "costs",
        "What it costs, and when it pays",
        f"Scoring {n_rows:,} rows took {pace}{calibration}. One step of training costs about three forwards, so it is "
        "slower than scoring on the same machine; to draw as many rows at random costs nothing.",
        [],
        [("When scoring pays", ("kept", "rows", "pays where training is slower than, rows/s", *titles), rows)],
    )


def _mix_section(standing: Standing, mixes: Mapping[str, Any]) -> Section:
    columns = ("mix", "values", "values lost", "distortion", "by chance")
    rows = [
        (name, one["n_strata"], one["n_strata_lost"], one["distortion"], one["distortion_by_chance"])
        for name, one in mixes.items()
    ]
    return Section(
        "mix",
        "What happens to the mix",
        "A plain top by any score favours some sources and kinds of answers. A quota keeps their shares.",
        [mix_chart(standing, "source"), mix_chart(standing, "answer_type")],
        [("Distortion: the share of kept rows that would have to be exchanged", columns, rows)],
    )


def _overlap_section(found: Mapping[str, Any], column: str) -> Iterator[Section]:
    """Which share of the kept rows other scores would keep under the same rule; nothing if there is no other score."""
    names: dict[str, Callable[[str], str]] = {
        "columns": name_form,
        "settings": lambda name: f"{name_form(column)}: {_name_setting(name)}",
        "runs": lambda name: f"run {name}",
    }
    lines = [
        (name_of(name), one["overlap"], one["spearman"])
        for group, name_of in names.items()
        for name, one in found[group].items()
        if one is not None
    ]
    if lines:
        rows = [("random rows (expected)", write_share(found["random"]), None)]
        rows += [(name, write_share(overlap), rank) for name, overlap, rank in sorted(lines, key=lambda line: -line[1])]
        columns = ("score", "overlap", "rank correlation")
        yield Section(
            "overlap",
            "Would another score or setting keep the same?",
            "Where two scores agree, the choice between them doesn't matter. Where they don't, calibration decides.",
            [],
            [("Share of the kept rows that other scores would keep too", columns, rows)],
        )


def count_reasons(scores: pa.Table) -> list[tuple[str, int, str]]:
    """Reason without names and numbers, rows, and the first full text, most frequent first."""
    failed = scores["reason"].filter(pc.equal(scores["status"], "failed"))
    n_rows, examples = Counter[str](), dict[str, str]()
    for one in pc.value_counts(failed).to_pylist():
        reason = generalise(one["values"])
        n_rows[reason] += one["counts"]
        examples.setdefault(reason, one["values"])
    return [(reason, n, examples[reason]) for reason, n in n_rows.most_common()]


def _name_setting(fields: str) -> str:
    """A setting that the audit calls "fraction 0.2, block -2, …", in fewer words if it is written in full."""
    values: dict[str, Any] = dict(part.split(" ", 1) for part in fields.split(", "))
    if not {"queries", "tokens", "fraction", "block"} <= values.keys():
        return fields
    return name_settings(values | {"fraction": float(values["fraction"])})

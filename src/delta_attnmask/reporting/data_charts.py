"""Charts of the data: the mix before and after, what other scores would keep, and failed rows. No torch here."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.reading.faults import generalise
from delta_attnmask.reporting.drawing import FAILED, INK, KEPT, LEFT, LINE, MUTED, Chart, drawing, fold, label, rule_out
from delta_attnmask.reporting.standing import Standing, group_by
from delta_attnmask.reporting.words import COLUMNS, name_form, name_settings, write_percent, write_share

_N_NAMES = 12
_N_OVERLAPS = 16
_N_REASONS = 10


def mix(standing: Standing, column: str) -> Chart:
    """The share of each value of a column among all candidates and among the kept."""
    groups = group_by(standing, column, _N_NAMES)
    n_kept = max(1, int(standing.is_kept.sum()))
    sizes = [(len(group.positions), int(standing.is_kept[group.positions].sum())) for group in groups]
    shares = [(n_all / len(standing), n / n_kept) for n_all, n in sizes]
    with drawing(0.3 * len(groups) + 0.85) as figure:
        axes = figure.subplots()
        places = range(len(groups))
        before, after = ([100 * share for share in each] for each in zip(*shares, strict=True))
        axes.hlines(places, before, after, color=LINE, linewidth=3, zorder=1)
        axes.plot(before, places, "o", mfc="none", mec=LEFT, mew=2, markersize=9, label="all rows", clip_on=False)
        axes.plot(after, places, "o", color=KEPT, markersize=6, label="kept rows", clip_on=False)
        axes.set_yticks(list(places), [label(group.name) for group in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("share, %")
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        rule_out(axes, "left")
        figure.legend(loc="outside upper right", ncols=2)
    name = COLUMNS.get(column, column)
    return Chart(
        f"mix-by-{name.replace(' ', '-')}",
        f"The mix by {name}",
        "Grey rings: share of all scored rows. Blue dots: share of the kept ones. The longer the bar between them, "
        "the more the selection shifts what the model will see.",
        f"Shares of {len(groups)} values of {name} before and after the selection; the table has the numbers.",
        figure,
        (name, "rows", "kept", "share before", "share after"),
        [
            (group.name, *size, *map(write_share, share))
            for group, size, share in zip(groups, sizes, shares, strict=True)
        ],
    )


def overlaps(found: Mapping[str, Any], column: str) -> Chart | None:
    """Which share of the kept rows other scores would keep under the same rule; None if there is no other score."""
    lines = _overlap_lines(found, column)
    if not lines:
        return None
    shown = lines[:_N_OVERLAPS]
    with drawing(0.29 * len(shown) + 0.85) as figure:
        axes = figure.subplots()
        bars = axes.barh(range(len(shown)), [100 * overlap for _, overlap, _ in shown], color=KEPT, height=0.6)
        axes.bar_label(bars, [write_percent(overlap) for _, overlap, _ in shown], padding=3, color=MUTED)
        axes.axvline(100 * found["random"], color=INK, linewidth=1.2, linestyle=(0, (3, 2)))
        axes.annotate(
            "random rows", (100 * found["random"], 1), (0, 2), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom",
        )  # fmt: skip
        axes.set_yticks(range(len(shown)), [fold(name, 30) for name, _, _ in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 108)
        axes.set_xlabel("of the kept rows it would keep too, %")
        axes.tick_params(axis="y", length=0)
        rule_out(axes, "left")
    return Chart(
        "overlap",
        "What other scores would keep",
        "Each bar is another score, setting or run under the same rule and budget. A bar near 100 % says that "
        f"{name_form(column)} chooses what that score chooses; one at the dashed line, that it chooses no more of it "
        "than chance does.",
        f"Bars of the overlap of the kept rows with {len(shown)} other scores; the table has all of them.",
        figure,
        ("score", "overlap", "rank correlation"),
        [("random rows (expected)", write_share(found["random"]), None)]
        + [(name, write_share(overlap), spearman) for name, overlap, spearman in lines],
    )


def failures(scores: pa.Table) -> Chart | None:
    """Failed rows by their reason, but for names and numbers; None if no row failed."""
    reasons = count_reasons(scores)
    if not reasons:
        return None
    shown = reasons[:_N_REASONS]
    with drawing(0.42 * len(shown) + 0.75) as figure:
        axes = figure.subplots()
        bars = axes.barh(range(len(shown)), [n_rows for _, n_rows, _ in shown], color=FAILED, height=0.34)
        axes.bar_label(bars, [f"{n_rows:,}" for _, n_rows, _ in shown], padding=3)
        for place, (reason, _, _) in enumerate(shown):
            axes.annotate(label(reason, 58), (0, place - 0.27), va="bottom", fontsize=8.5)
        axes.set_yticks([])
        axes.set_ylim(len(shown) - 0.6, -0.8)
        axes.margins(x=0.1)
        axes.set_xlabel("rows", color=MUTED)
        rule_out(axes, "left")
    n_failed = sum(n_rows for _, n_rows, _ in reasons)
    return Chart(
        "failed-rows",
        "Failed rows by reason",
        f"{n_failed:,} of {len(scores):,} rows could not be scored, and are never kept. Names and numbers are left "
        "out of the reasons.",
        f"Bars of {len(shown)} reasons by their number of rows; the table has an example of each.",
        figure,
        ("reason", "rows", "example"),
        [(reason, n_rows, label(example, 200)) for reason, n_rows, example in reasons[:50]],
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


def _overlap_lines(found: Mapping[str, Any], column: str) -> list[tuple[str, float, float | None]]:
    """Name, overlap and rank correlation of every other score, the most alike first."""
    namings: dict[str, Callable[[str], str]] = {
        "columns": name_form,
        "settings": lambda name: f"{name_form(column)}: {_name_setting(name)}",
        "runs": lambda name: f"run {name}",
    }
    lines = [
        (naming(name), one["overlap"], one["spearman"])
        for group, naming in namings.items()
        for name, one in found[group].items()
        if one is not None
    ]
    return sorted(lines, key=lambda line: -line[1])


def _name_setting(fields: str) -> str:
    """A setting that the audit calls "fraction 0.2, block -2, …", in fewer words if it is told in full."""
    values: dict[str, Any] = dict(part.split(" ", 1) for part in fields.split(", "))
    if not {"queries", "tokens", "fraction", "block"} <= values.keys():
        return fields
    return name_settings(values | {"fraction": float(values["fraction"])})


def list_settings(settings: Mapping[str, Any]) -> Sequence[tuple[str, object]]:
    """A run's settings as names and values, its sweep in few words."""
    lines = [(name, value) for name, value in settings.items() if name != "sweep"]
    sweep = settings.get("sweep") or []
    return [*lines, ("sweep", "; ".join(name_settings(one) for one in sweep) or "none")]

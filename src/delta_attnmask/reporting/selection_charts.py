"""Charts of a selection: where the cut falls in each source, and the mix before and after. No torch here."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from delta_attnmask.reporting.drawing import INK, KEPT, LEFT, LINE, Chart, drawing, label, rule_out
from delta_attnmask.reporting.standing import Group, Standing, group_by
from delta_attnmask.reporting.words import COLUMNS, name_form, write_share
from delta_attnmask.statistics import Values

_N_NAMES, _N_BINS = 12, 48
_TAILS = (0.5, 99.5)  # percentiles between which the axis runs


def distribution(standing: Standing) -> Chart:
    """How the score is distributed in each source, kept rows apart from those left, and where the cut is."""
    groups, edges = group_by(standing, "source", _N_NAMES), _bins(standing)
    is_outside = (standing.values < edges[0]) | (standing.values > edges[-1])
    with drawing(0.62 * len(groups) + 0.9) as figure:
        panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
        for axes, group in zip(panels, groups, strict=True):
            _draw_group(axes, standing, group, edges)
        panels[-1].tick_params(axis="x", length=3)
        panels[-1].set_xlabel(f"score: {name_form(standing.selection.column)} (higher is kept)")
        fates = [Patch(color=KEPT, label="kept"), Patch(color=LEFT, alpha=0.6, label="left")]
        figure.legend(handles=fates, loc="outside upper right", ncols=2, handlelength=0.8, handleheight=0.8)
    rows = [_describe_group(standing, group) for group in groups]
    return Chart(
        "score-by-source",
        "Where the cut falls in each source",
        "Each strip is one source: how many of its rows have which score. Blue rows are kept, grey ones are left, "
        "and the vertical line is the cut. Where blue and grey overlap, the cut differs within the source. "
        f"{write_share(is_outside.mean())} of the rows lie outside the axis, which shows the surroundings of the cut.",
        f"Histograms of the score in {len(groups)} sources, kept and left rows apart; the table below has the numbers.",
        figure,
        ("source", "rows", "kept", "share kept", "median score", "lowest kept"),
        rows,
    )


def mix_chart(standing: Standing, column: str) -> Chart:
    """The share of each value of a column among all candidates and among the kept."""
    groups = group_by(standing, column, _N_NAMES)
    n_kept = max(1, int(standing.is_kept.sum()))
    sizes = [(len(group.positions), int(standing.is_kept[group.positions].sum())) for group in groups]
    shares = [(n_all / len(standing), n / n_kept) for n_all, n in sizes]
    with drawing(0.3 * len(groups) + 0.85) as figure:
        axes = figure.subplots()
        lines = range(len(groups))
        before, after = ([100 * share for share in each] for each in zip(*shares, strict=True))
        axes.hlines(lines, before, after, color=LINE, linewidth=3, zorder=1)
        axes.plot(before, lines, "o", mfc="none", mec=LEFT, mew=2, markersize=9, label="all rows", clip_on=False)
        axes.plot(after, lines, "o", color=KEPT, markersize=6, label="kept rows", clip_on=False)
        axes.set_yticks(list(lines), [label(group.name) for group in groups])
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


def _bins(standing: Standing) -> Values:
    """Edges of bins: around the cuts, up by twice the distance of the quartiles, down thrice as far as that."""
    low, high = _span(standing.values)
    cuts = standing.cuts[np.isfinite(standing.cuts)]
    reach = 2 * float(np.subtract(*np.percentile(standing.values, (75, 25))))
    if len(cuts) and reach:
        high = min(high, cuts.max() + reach)
        low = max(low, cuts.min() - 3 * max(high - cuts.min(), 0))
    return np.linspace(low, high if high > low else low + 1, _N_BINS + 1)


def _draw_group(axes: Axes, standing: Standing, group: Group, edges: Values) -> None:
    values, is_kept = standing.values[group.positions], standing.is_kept[group.positions]
    counts_all = np.histogram(values, edges)[0]
    counts_kept = np.histogram(values[is_kept], edges)[0]
    top = max(1, counts_all.max())
    axes.stairs(counts_all / top, edges, baseline=counts_kept / top, fill=True, color=LEFT, alpha=0.55, linewidth=0)
    axes.stairs(counts_kept / top, edges, fill=True, color=KEPT, linewidth=0)
    if (cut := _single_cut(values, is_kept)) is not None and edges[0] <= cut <= edges[-1]:
        axes.axvline(cut, color=INK, linewidth=1.2)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0.4], [f"{label(group.name, 18)}\n{len(values):,} rows"])
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", length=0)
    rule_out(axes, "left")


def _single_cut(values: Values, is_kept: NDArray[np.bool_]) -> float | None:
    """The lowest value kept, if nothing above it is left."""
    if not is_kept.any():
        return None
    lowest = float(values[is_kept].min())
    return None if (values[~is_kept] > lowest).any() else lowest


def _describe_group(standing: Standing, group: Group) -> tuple[object, ...]:
    values, is_kept = standing.values[group.positions], standing.is_kept[group.positions]
    lowest = float(values[is_kept].min()) if is_kept.any() else None
    n_kept = int(is_kept.sum())
    return group.name, len(values), n_kept, write_share(n_kept / len(values)), float(np.median(values)), lowest


def _span(values: Values) -> tuple[float, float]:
    """The range of an axis, never empty."""
    low, high = np.percentile(values, _TAILS).tolist()
    return (low, high) if high > low else (low - 0.5, low + 0.5)

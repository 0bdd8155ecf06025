"""Charts of the score: its distribution with the cut, and what it goes along with. No torch here."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from delta_attnmask.reporting.drawing import (
    INK,
    KEPT,
    LEFT,
    LINE,
    Chart,
    drawing,
    label,
    number_logarithmically,
    rule_out,
)
from delta_attnmask.reporting.standing import Group, Standing, group_by
from delta_attnmask.reporting.words import name_form, write_share
from delta_attnmask.selecting.rules import Positions, Values

_N_SOURCES, _N_BINS = 12, 48
_N_POINTS = 1200
_N_PARTS = 10  # of the table behind a scatter: tenths of the rows
_TAILS = (0.5, 99.5)  # percentiles between which the axis runs


def distribution(standing: Standing) -> Chart:
    """How the score is distributed in each source, kept rows apart from those left, and where the cut is."""
    groups, edges = group_by(standing, "source", _N_SOURCES), _bins(standing)
    is_outside = (standing.values < edges[0]) | (standing.values > edges[-1])
    with drawing(0.62 * len(groups) + 0.9) as figure:
        panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
        for axes, group in zip(panels, groups, strict=True):
            _draw_group(axes, standing, group, edges)
        panels[-1].tick_params(axis="x", length=3)
        panels[-1].set_xlabel(f"score: {name_form(standing.selection.column)} (higher is kept)")
        _name_fates(figure)
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
        is_tall=len(groups) > 4,
    )


def against_loss(standing: Standing, correlation: float | None) -> Chart:
    """Score against loss."""
    return _scatter(
        standing,
        "loss",
        "score-by-loss",
        "Score against loss",
        "loss of the answer, nats per token",
        f"{_say_correlation(correlation)} If the points lie on a line, low loss alone would choose the same rows.",
    )


def against_length(standing: Standing, correlation: float | None) -> Chart:
    """Score against the length of the answer."""
    return _scatter(
        standing,
        "n_answer_tokens",
        "score-by-length",
        "Score against answer length",
        "answer tokens",
        f"{_say_correlation(correlation)} A slope means that the score prefers short or long answers.",
        is_log=True,
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


def _scatter(
    standing: Standing, column: str, name: str, title: str, axis: str, caption: str, *, is_log: bool = False
) -> Chart:
    trait, shown = standing.column(column), _spaced_points(standing)
    known = shown[np.isfinite(trait[shown])]
    size = 2.2 if len(known) > 300 else 4.0
    with drawing(3.3) as figure:
        axes = figure.subplots()
        for is_kept, colour in ((False, LEFT), (True, KEPT)):
            points = known[standing.is_kept[known] == is_kept]
            axes.plot(trait[points], standing.values[points], "o", color=colour, markersize=size, mew=0, alpha=0.75)
        if is_log and len(known):
            axes.set_xscale("log")
            number_logarithmically(axes.xaxis)
        if len(known):
            axes.set_xlim(*_padded(trait[known], is_log=is_log))
        axes.set_ylim(*_padded(standing.values))
        axes.set_xlabel(axis)
        axes.set_ylabel(name_form(standing.selection.column))
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        _name_fates(figure)
    some = "" if len(shown) == len(standing) else f" {len(shown):,} rows at even distances are drawn."
    return Chart(
        name,
        title,
        caption + some,
        f"Scatter of {axis} against the score; the table below gives the same by tenths.",
        figure,
        (axis, "rows", "share kept", "median score"),
        _by_parts(standing, trait),
    )


def _by_parts(standing: Standing, trait: Values) -> Sequence[tuple[object, ...]]:
    """The rows in tenths by a trait, equal values together: range, rows, share kept, median score."""
    known = np.flatnonzero(np.isfinite(trait))
    if not len(known):
        return []
    edges = np.unique(np.quantile(trait[known], np.linspace(0, 1, _N_PARTS + 1)))
    parts = np.searchsorted(edges[1:-1], trait[known], side="left") if len(edges) > 2 else np.zeros(len(known), int)
    lines = []
    for part in np.unique(parts):
        own = known[parts == part]
        span = f"{trait[own].min():.4g} to {trait[own].max():.4g}"
        lines.append(
            (span, len(own), write_share(standing.is_kept[own].mean()), float(np.median(standing.values[own])))
        )
    return lines


def _spaced_points(standing: Standing) -> Positions:
    """Candidates at even distances, at most `_N_POINTS`."""
    return np.unique(np.linspace(0, len(standing) - 1, min(len(standing), _N_POINTS)).astype(np.intp))


def _name_fates(figure: Figure) -> None:
    """A legend of the two fates of a row."""
    fates = [Patch(color=KEPT, label="kept"), Patch(color=LEFT, alpha=0.6, label="left")]
    figure.legend(handles=fates, loc="outside upper right", ncols=2, handlelength=0.8, handleheight=0.8)


def _span(values: Values) -> tuple[float, float]:
    """The range of an axis, never empty."""
    low, high = np.percentile(values, _TAILS).tolist()
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _padded(values: Values, *, is_log: bool = False) -> tuple[float, float]:
    low, high = _span(values)
    if is_log:
        return max(low, 0.5) / 1.15, max(high, 1) * 1.15
    pad = 0.03 * (high - low)
    return low - pad, high + pad


def _say_correlation(correlation: float | None) -> str:
    if correlation is None:
        return "The rank correlation is not known: one of the two never changes."
    return f"Rank correlation {correlation:.2f}.".replace("-", "−")

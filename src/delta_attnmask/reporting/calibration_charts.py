"""Charts of the calibration: which score tells which kind of planted defect. No torch here."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from numpy.typing import NDArray

from delta_attnmask.reporting.calibration import Findings, Tried
from delta_attnmask.reporting.drawing import KEPT, LEFT, LINE, MUTED, Chart, drawing, fold, rule_out
from delta_attnmask.reporting.words import name_kind

_N_ROWS = 22
_N_SOURCES = 12
_COLOURS = "PuOr"  # told apart by readers who don't see red and green alike
_DARK_CELL = 0.27  # distance from chance from which white text is read better


def heat_map(findings: Findings) -> Chart:
    """Settings × kinds of defects: the AUROC of each."""
    shown, names = _candidates_to_show(findings), [name_kind(kind) for kind in findings.kinds]
    aurocs = np.array([[_or_nan(one.aurocs[kind]) for kind in findings.kinds] for one in shown])
    with drawing(0.33 * len(shown) + 1.2, width=6.2) as figure:
        axes = figure.subplots()
        axes.pcolormesh(np.ma.masked_invalid(aurocs), cmap=_COLOURS, norm=TwoSlopeNorm(0.5, 0.0, 1.0), edgecolor="none")
        _write_cells(axes, aurocs)
        axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=32, ha="left", rotation_mode="anchor")
        axes.xaxis.tick_top()
        axes.set_yticks(np.arange(len(shown)) + 0.5, [fold(str(one), 30) for one in shown])
        axes.get_yticklabels()[0].set_fontweight("bold")
        axes.get_yticklabels()[0].set_color(KEPT)
        axes.invert_yaxis()
        axes.tick_params(length=0)
        rule_out(axes, "left", "bottom")
    return Chart(
        "calibration",
        "Which score sees which defect",
        f"{findings.n_planted:,} defective copies were made of {findings.n_originals:,} of your rows. Each number is "
        "the chance that a row ranks above its defective copy (AUROC): 1 sees every one, 0.5 is a coin, below 0.5 "
        "prefers the defect. First, in blue, the setting that was chosen; then others by their value, with controls "
        "and scores that need no mask. A setting reads: whose attention counts → which tokens are masked, their "
        "share, behind which block.",
        f"Heat map of {len(shown)} scores by {len(names)} kinds of planted defects; the table has all numbers.",
        figure,
        ("score", "value", *names),
        [(str(one), one.value, *(one.aurocs[kind] for kind in findings.kinds)) for one in _by_value(findings)],
        is_wide=True,
    )


def kinds_chart(findings: Findings) -> Chart:
    """The chosen score's AUROC for each kind of defect with its interval."""
    kinds = sorted(findings.kinds, key=lambda kind: -_or_low(findings.chosen.aurocs[kind]))
    with drawing(0.34 * len(kinds) + 0.7) as figure:
        axes = figure.subplots()
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        axes.annotate("chance", (0.5, -0.6), (-4, 0), textcoords="offset points", ha="right", va="top", color=MUTED)
        for place, kind in enumerate(kinds):
            colour = KEPT if kind in findings.visible else LEFT
            low, high = findings.intervals[kind]
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="round")
            if (auroc := findings.chosen.aurocs[kind]) is not None:
                axes.plot([auroc], [place], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(kinds)), [name_kind(kind) for kind in kinds])
        axes.set_ylim(len(kinds) - 0.4, -0.6)
        axes.set_xlim(min(0.35, 0.9 * min(_or_low(findings.chosen.aurocs[kind]) for kind in kinds)), 1.02)
        axes.set_xlabel("AUROC, with its 95 % interval")
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        rule_out(axes, "left")
    return Chart(
        "calibration-chosen",
        "What the chosen score sees",
        "The further right, the surer it ranks a good row above a copy with that defect. Blue: a kind that some score "
        "tells from good rows. Grey: one that no score tells; rows with that defect are kept like any others.",
        f"Dots with intervals for {len(kinds)} kinds of planted defects; the table has the numbers.",
        figure,
        ("defect", "seen", "AUROC", "low", "high"),
        [
            (name_kind(kind), kind in findings.visible, findings.chosen.aurocs[kind], *findings.intervals[kind])
            for kind in kinds
        ],
    )


def sources_table(findings: Findings) -> tuple[tuple[str, ...], Sequence[tuple[object, ...]]]:
    """Columns and rows: the chosen score's AUROC in each source, of all seen kinds with its interval and of each."""
    rows = [
        (source, found.together, found.low, found.high, *(found.aurocs[kind] for kind in findings.kinds))
        for source, found in findings.sources.items()
    ]
    return ("source", "all seen", "low", "high", *map(name_kind, findings.kinds)), rows[:50]


def _candidates_to_show(findings: Findings) -> list[Tried]:
    """The chosen one, then of each form's settings the best, the controls, and the scores without a mask, by value."""
    ordered = [one for one in _by_value(findings) if one != findings.chosen]
    of_form = [one for one in ordered if one.settings and not one.is_control and one.form == findings.chosen.form]
    forms = {one.form: one for one in reversed(ordered) if one.settings and one.form != findings.chosen.form}
    controls = {str((one.settings or {}).get("order")): one for one in reversed(ordered) if one.is_control}
    plain = [one for one in ordered if one.settings is None]
    rest = [*of_form[:8], *forms.values(), *controls.values(), *plain]
    return [findings.chosen, *_sorted(rest)[: _N_ROWS - 1]]


def _by_value(findings: Findings) -> list[Tried]:
    return _sorted(findings.candidates)


def _sorted(tried: Sequence[Tried]) -> list[Tried]:
    return sorted(tried, key=lambda one: -_or_low(one.value))


def _write_cells(axes: Axes, aurocs: NDArray[np.float64]) -> None:
    for (row, column), auroc in np.ndenumerate(aurocs):
        text = "–" if np.isnan(auroc) else f"{auroc:.2f}".removeprefix("0")
        colour = "#fffffe" if abs(auroc - 0.5) > _DARK_CELL else "#10151a"  # on the cells' own colours, light or dark
        axes.text(column + 0.5, row + 0.52, text, ha="center", va="center", color=MUTED if np.isnan(auroc) else colour)


def _or_nan(number: float | None) -> float:
    return float("nan") if number is None else number


def _or_low(number: float | None) -> float:
    return 0.0 if number is None else number

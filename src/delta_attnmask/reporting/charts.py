"""The report's two figures, drawn by matplotlib: where the cut falls, and what the score sees."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from delta_attnmask.reporting.standing import Standing
from delta_attnmask.reporting.summary import Findings
from delta_attnmask.reporting.words import count, name_kind, write_share
from delta_attnmask.selecting.candidates import Positions
from delta_attnmask.selecting.strata import encode
from delta_attnmask.statistics import Values

# The light colours of `templates/style.css`; in the page each becomes the style sheet's variable, which knows the dark.
_INK, _MUTED, _LINE, _KEPT, _LEFT = "#1d2126", "#5b626b", "#dcd8d0", "#0b62a4", "#8a8175"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _LINE: "line", _KEPT: "kept", _LEFT: "left"}
_STYLE: Any = {
    "font.size": 9,
    "font.sans-serif": "DejaVu Sans",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "text.parse_math": False,  # a source may be called $x$
    "svg.fonttype": "none",
}
_WIDTH = 4.4  # inches; text of 9 points is then still read on a phone
_MAX_LABEL, _N_NAMES, _N_BINS = 18, 12, 48
_TAILS = (0.5, 99.5)  # percentiles between which the axis runs


@dataclass(frozen=True)
class Chart:
    """One figure with what it says.

    caption: how to read it. svg: the figure in the page's colours, with a text for those who don't see it.
    columns, rows: its numbers, as a table.
    """

    title: str
    caption: str
    svg: Markup
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def distribution(standing: Standing) -> Chart:
    """How the score is distributed in each source, kept rows apart from those left, and where the cut is."""
    groups, edges = _largest_sources(standing), _bins(standing)
    is_outside = (standing.values < edges[0]) | (standing.values > edges[-1])

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, positions) in zip(panels, groups, strict=True):
            _draw_source(axes, standing, name, positions, edges)
        panels[-1].tick_params(axis="x", length=3)
        panels[-1].set_xlabel(f"score: {standing.selection.column} (higher is kept)")
        fates = [Patch(color=_KEPT, label="kept"), Patch(color=_LEFT, alpha=0.6, label="left")]
        figure.legend(handles=fates, loc="outside upper right", ncols=2, handlelength=0.8, handleheight=0.8)

    rows = list[tuple[object, ...]]()
    for name, positions in groups:
        values, is_kept = standing.values[positions], standing.is_kept[positions]
        lowest = float(values[is_kept].min()) if is_kept.any() else None
        share = write_share(is_kept.mean())
        rows.append((name, len(values), int(is_kept.sum()), share, float(np.median(values)), lowest))
    alt = f"Histograms of the score in {len(groups)} sources, kept and left rows apart; the table has the numbers."
    return Chart(
        "Where the cut falls in each source",
        "Each strip is one source: how many of its rows have which score. Blue rows are kept, grey ones are left, "
        "and the vertical line is the cut. Where blue and grey overlap, the cut differs within the source. "
        f"{write_share(is_outside.mean())} of the rows lie outside the axis, which shows the surroundings of the cut.",
        _to_svg(draw, 0.62 * len(groups) + 0.9, "cut", alt),
        ("source", "rows", "kept", "share kept", "median score", "lowest kept"),
        rows,
    )


def kinds_chart(findings: Findings) -> Chart:
    """The chosen score's AUROC for each kind of defect with its interval."""
    aurocs, report = findings.aurocs, findings.report
    kinds = sorted(findings.kinds, key=lambda kind: -(aurocs[kind] or 0.0))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0.5, color=_MUTED, linewidth=1, linestyle=(0, (3, 2)))
        axes.annotate("chance", (0.5, -0.6), (-4, 0), textcoords="offset points", ha="right", va="top", color=_MUTED)
        for position, kind in enumerate(kinds):
            colour = _KEPT if kind in findings.seen else _LEFT
            low, high = findings.intervals[kind]
            if low is not None and high is not None:
                axes.plot([low, high], [position, position], color=colour, linewidth=2, solid_capstyle="round")
            if (auroc := aurocs[kind]) is not None:
                axes.plot([auroc], [position], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(kinds)), [name_kind(kind) for kind in kinds])
        axes.set_ylim(len(kinds) - 0.4, -0.6)
        axes.set_xlim(min(0.35, 0.9 * min(auroc or 0.0 for auroc in aurocs.values())), 1.02)
        axes.set_xlabel("AUROC, with its 95 % interval")
        axes.grid(axis="x", color=_LINE, linewidth=0.6)
        axes.tick_params(axis="y", length=0)

    alt = f"Dots with intervals for {len(kinds)} kinds of planted defects; the table has the numbers."
    return Chart(
        "What the chosen score sees",
        f"{report['n_planted']:,} defective copies were made of {report['n_originals']:,} of your rows. AUROC is the "
        "chance that a row ranks above a defective copy: 1 is always, 0.5 a coin toss, below 0.5 the score prefers the "
        "defect. Blue: kinds that the score sees. Grey: kinds that it doesn't; rows with such a defect are kept like "
        "any others.",
        _to_svg(draw, 0.34 * len(kinds) + 0.7, "kinds", alt),
        ("defect", "seen", "AUROC", "low", "high"),
        [(name_kind(kind), kind in findings.seen, aurocs[kind], *findings.intervals[kind]) for kind in kinds],
    )


def _to_svg(draw: Callable[[Figure], None], height: float, name: str, alt: str) -> Markup:
    """An inline SVG of what `draw` draws; height in inches.

    Its colours are the page's, all text stays text, and styles are attributes of their own, since the page's policy
    refuses `style`. name: makes the names of its parts differ from those of other figures.
    """
    file = StringIO()
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a browser has other fonts
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(file, format="svg", metadata={"Date": None})
    svg = file.getvalue().partition("<svg ")[2]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<(g|text) id="[^"]*"', r"<\1", svg)
    svg = re.sub(r' style="([^"]*)"', lambda found: re.sub(r"([\w-]+): ([^;]*);?", r' \1="\2"', found[1]), svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f'"{colour}"', f'"var(--{variable})"')
    return Markup('<svg role="img" aria-label="{}" class="chart" stroke-linejoin="round" ').format(alt) + Markup(svg)


def _shorten(name: str) -> str:
    """A name from the data as a label: printable, and of bounded length by leaving out its middle."""
    shown = "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in name) or "(none)"
    return shown if len(shown) <= _MAX_LABEL else f"{shown[: _MAX_LABEL - 6]}…{shown[-5:]}"


def _largest_sources(standing: Standing) -> list[tuple[str, Positions]]:
    """The largest sources and where their candidates are, by size; what doesn't fit is joined as "n others", last."""
    codes, names = encode(standing.table, "source")
    sizes = np.bincount(codes, minlength=len(names))
    n_sources = np.count_nonzero(sizes)
    shown = np.argsort(-sizes, kind="stable")[: n_sources if n_sources <= _N_NAMES else _N_NAMES - 1]
    groups = [(names[code], np.flatnonzero(codes == code)) for code in shown]
    rest = np.flatnonzero(~np.isin(codes, shown))
    return [*groups, (f"{n_sources - len(shown)} others", rest)] if len(rest) else groups


def _bins(standing: Standing) -> Values:
    """Edges of bins: around the cuts, up by twice the distance of the quartiles, down thrice as far as that."""
    low, high = np.percentile(standing.values, _TAILS)
    cuts = standing.cuts[np.isfinite(standing.cuts)]
    reach = 2 * float(np.subtract(*np.percentile(standing.values, (75, 25))))
    if len(cuts) and reach:
        high = min(high, cuts.max() + reach)
        low = max(low, cuts.min() - 3 * max(high - cuts.min(), 0))
    return np.linspace(low, high, _N_BINS + 1) if high > low else np.linspace(low - 0.5, low + 0.5, _N_BINS + 1)


def _draw_source(axes: Axes, standing: Standing, name: str, positions: Positions, edges: Values) -> None:
    values, is_kept = standing.values[positions], standing.is_kept[positions]
    counts_all = np.histogram(values, edges)[0]
    counts_kept = np.histogram(values[is_kept], edges)[0]
    top = max(1, counts_all.max())
    axes.stairs(counts_all / top, edges, baseline=counts_kept / top, fill=True, color=_LEFT, alpha=0.55, linewidth=0)
    axes.stairs(counts_kept / top, edges, fill=True, color=_KEPT, linewidth=0)
    cut = values[is_kept].min(initial=np.inf)
    if edges[0] <= cut <= edges[-1] and not (values[~is_kept] > cut).any():
        axes.axvline(cut, color=_INK, linewidth=1.2)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0.4], [f"{_shorten(name)}\n{count(len(values), 'row')}"])
    axes.tick_params(length=0)

"""The report's figures by matplotlib, once for paper and once for the page: where the cut falls, and what is seen.

A figure is drawn in the light colours of `templates/style.css`. Files for papers keep them; in the page each becomes
the style sheet's variable of the same meaning, so that a dark page has light ink, and all text stays text.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from delta_attnmask.reporting.standing import Group, Standing, group_by
from delta_attnmask.reporting.summary import Findings
from delta_attnmask.reporting.words import name_kind, write_share
from delta_attnmask.statistics import Values
from delta_attnmask.storage import write_atomically

INK, MUTED, LINE = "#1d2126", "#5b626b", "#dcd8d0"
KEPT, LEFT = "#0b62a4", "#8a8175"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    KEPT: "var(--kept)",
    LEFT: "var(--left)",
}

_WIDTH = 4.4  # inches; text of 9 points is then still read on a phone
_STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "text.parse_math": False,  # a source may be called $x$
    "svg.fonttype": "none",
}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_TO_SHORTEN = ("d", "x", "y", "width", "height", "transform")
_MAX_LABEL = 28
_N_NAMES, _N_BINS = 12, 48
_TAILS = (0.5, 99.5)  # percentiles between which the axis runs


@dataclass(frozen=True)
class Chart:
    """One figure with what it says.

    name: of its files. caption: how to read it. alt: what it shows, for those who don't see it.
    columns, rows: its numbers, as a table.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def to_html(self) -> Markup:
        """The figure as an inline SVG in the page's colours, without `style` attributes, which its policy refuses."""
        root = ElementTree.fromstring(self._save("svg"))
        for parent in list(root.iter()):
            for child in [child for child in parent if child.tag in {f"{_SVG}metadata", f"{_SVG}style"}]:
                parent.remove(child)
        for element in root.iter():
            _to_page(element)
        for name in ("width", "height", "version"):
            del root.attrib[name]
        root.attrib |= {"role": "img", "aria-label": self.alt, "class": "chart", "stroke-linejoin": "round"}
        return Markup(ElementTree.tostring(root, encoding="unicode"))

    def write(self, folder: Path) -> list[Path]:
        """FOLDER/name.svg and FOLDER/name.png, for papers: light, on white, the PNG with 300 dots an inch."""
        paths = []
        for extension in ("svg", "png"):
            with write_atomically(folder / f"{self.name}.{extension}") as file:
                file.write(self._save(extension, facecolor="white"))
            paths.append(folder / f"{self.name}.{extension}")
        return paths

    def _save(self, extension: str, facecolor: str = "none") -> bytes:
        file = BytesIO()
        metadata = {"Date": None} if extension == "svg" else {}
        style = _STYLE | {"svg.hashsalt": self.name}  # names of parts then differ between the figures of a page
        with mpl.rc_context(style), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a browser has other fonts
            self.figure.savefig(file, format=extension, dpi=300, facecolor=facecolor, metadata=metadata)
        return file.getvalue()


def distribution(standing: Standing) -> Chart:
    """How the score is distributed in each source, kept rows apart from those left, and where the cut is."""
    groups, edges = group_by(standing, "source", _N_NAMES), _bins(standing)
    is_outside = (standing.values < edges[0]) | (standing.values > edges[-1])
    with _drawing(0.62 * len(groups) + 0.9) as figure:
        panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
        for axes, group in zip(panels, groups, strict=True):
            _draw_group(axes, standing, group, edges)
        panels[-1].tick_params(axis="x", length=3)
        panels[-1].set_xlabel(f"score: {standing.selection.column} (higher is kept)")
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


def kinds_chart(findings: Findings) -> Chart:
    """The chosen score's AUROC for each kind of defect with its interval."""
    aurocs, n_planted, n_originals = findings.aurocs, findings.report["n_planted"], findings.report["n_originals"]
    kinds = sorted(findings.kinds, key=lambda kind: -(aurocs[kind] or 0.0))
    with _drawing(0.34 * len(kinds) + 0.7) as figure:
        axes = figure.subplots()
        axes.axvline(0.5, color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        axes.annotate("chance", (0.5, -0.6), (-4, 0), textcoords="offset points", ha="right", va="top", color=MUTED)
        for position, kind in enumerate(kinds):
            colour = KEPT if kind in findings.seen else LEFT
            low, high = findings.intervals[kind]
            if low is not None and high is not None:
                axes.plot([low, high], [position, position], color=colour, linewidth=2, solid_capstyle="round")
            if (auroc := aurocs[kind]) is not None:
                axes.plot([auroc], [position], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(kinds)), [name_kind(kind) for kind in kinds])
        axes.set_ylim(len(kinds) - 0.4, -0.6)
        axes.set_xlim(min(0.35, 0.9 * min(auroc or 0.0 for auroc in aurocs.values())), 1.02)
        axes.set_xlabel("AUROC, with its 95 % interval")
        axes.grid(axis="x", color=LINE, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return Chart(
        "calibration",
        "What the chosen score sees",
        f"{n_planted:,} defective copies were made of {n_originals:,} of your rows. AUROC is the "
        "chance that a row ranks above a defective copy: 1 is always, 0.5 a coin toss, below 0.5 the score prefers the "
        "defect. Blue: kinds that the score sees. Grey: kinds that it doesn't; rows with such a defect are kept like "
        "any others.",
        f"Dots with intervals for {len(kinds)} kinds of planted defects; the table has the numbers.",
        figure,
        ("defect", "seen", "AUROC", "low", "high"),
        [(name_kind(kind), kind in findings.seen, aurocs[kind], *findings.intervals[kind]) for kind in kinds],
    )


@contextmanager
def _drawing(height: float) -> Iterator[Figure]:
    """A new figure in the house style; height in inches."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(_WIDTH, height), layout="constrained")


def label(text: str, longest: int = _MAX_LABEL) -> str:
    """A name from the data as a label: printable, and of bounded length by leaving out its middle."""
    shown = "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text) or "(none)"
    if len(shown) <= longest:
        return shown
    tail = (longest - 1) // 3  # where names of one family differ
    return f"{shown[: longest - 1 - tail]}…{shown[len(shown) - tail :]}"


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
    axes.spines["left"].set_visible(False)


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


def _to_page(element: ElementTree.Element) -> None:
    """One element for the page: attributes for styles, variables for colours, no namespaces, short numbers."""
    element.tag = element.tag.removeprefix(_SVG)
    for declaration in filter(None, element.attrib.pop("style", "").split(";")):
        name, _, value = declaration.partition(":")
        if name.strip() != "font-family":
            element.set(name.strip(), VARIABLES.get(value.strip(), value.strip()))
    if (target := element.attrib.pop(f"{_XLINK}href", None)) is not None:
        element.set("href", target)
    if element.tag in {"g", "text"}:
        element.attrib.pop("id", None)
    for name in _TO_SHORTEN:
        if name in element.attrib:
            element.set(name, _DECIMALS.sub(r"\1", element.attrib[name]))

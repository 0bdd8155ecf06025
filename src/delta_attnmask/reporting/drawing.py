"""Figures by matplotlib, once for paper and once for the page. No torch here.

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
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from delta_attnmask.storage import write_atomically

INK, MUTED, LINE = "#1d2126", "#5b626b", "#dcd8d0"
KEPT, LEFT, FAILED, WARM, PANEL = "#0b62a4", "#8a8175", "#b3261e", "#b45309", "#ffffff"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    KEPT: "var(--kept)",
    LEFT: "var(--left)",
    FAILED: "var(--failed)",
    WARM: "var(--warm)",
    PANEL: "var(--panel)",
}

WIDTH = 4.4  # inches; text of 9 points is then still read on a phone
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


@contextmanager
def drawing(height: float, *, width: float = WIDTH) -> Iterator[Figure]:
    """A new figure in the house style, in inches."""
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def label(text: str, longest: int = _MAX_LABEL) -> str:
    """A name from the data as a label: printable, and of bounded length by leaving out its middle."""
    shown = "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text) or "(none)"
    if len(shown) <= longest:
        return shown
    tail = (longest - 1) // 3  # where names of one family differ
    return f"{shown[: longest - 1 - tail]}…{shown[len(shown) - tail :]}"


def rule_out(axes: Axes, *sides: str) -> None:
    """Take away frame lines."""
    axes.spines[list(sides)].set_visible(False)


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

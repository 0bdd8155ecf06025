"""One module a source; each has `samples(rng, n, split)` and, where it shows pictures, `blank_picture(rng)`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from ..sample import Picture, Row
from . import chart, clipart, easyvqa, emoji, scene, text
from .mixing import Split

Samples = Callable[[random.Random, int, Split], Iterator[Row]]

SOURCES: dict[str, Samples] = {
    "easyvqa": easyvqa.samples, "emoji": emoji.samples, "scene": scene.samples, "chart": chart.samples,
    "clipart": clipart.samples, "fxemoji": emoji.samples_new_style, "text": text.samples,
}  # fmt: skip
_BLANKS = {
    "easyvqa": easyvqa.blank_picture, "emoji": emoji.blank_picture, "scene": scene.blank_picture,
    "chart": chart.blank_picture, "clipart": clipart.blank_picture, "fxemoji": emoji.blank_picture,
}  # fmt: skip


def blank_picture(source: str, rng: random.Random) -> Picture:
    """An empty picture as the source would draw one."""
    return _BLANKS[source](rng)

"""The suite's sources: five of the embedded data set, and four of the suite's own.

A source draws rows of one picture and one question; its facts answer every question that can be asked of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embedded.sample import Picture, Row
from embedded.sources import SOURCES as EMBEDDED
from embedded.sources import chart, clipart, easyvqa, emoji, scene
from embedded.sources.mixing import Split

from . import digits, flags, maps, words

APT, NPM, PIP = ("apt-get", "dpkg"), ("npm",), ("pip",)
Samples = Callable[[random.Random, int, Split], Iterator[Row]]
Blank = Callable[[random.Random], Picture]


@dataclass(frozen=True)
class Source:
    """How to draw a source's rows and its empty picture, and the programs that fetch what it is made of."""

    samples: Samples
    blank: Blank
    clients: tuple[str, ...]


_ALL = PIP + NPM + APT  # the embedded data's drawings are rendered all at once

SOURCES: dict[str, Source] = {
    "emoji": Source(EMBEDDED["emoji"], emoji.blank_picture, _ALL),
    "scene": Source(EMBEDDED["scene"], scene.blank_picture, _ALL),
    "easyvqa": Source(EMBEDDED["easyvqa"], easyvqa.blank_picture, _ALL),
    "chart": Source(EMBEDDED["chart"], chart.blank_picture, _ALL),
    "words": Source(words.samples, emoji.blank_picture, _ALL),
    "digits": Source(digits.samples, digits.blank_picture, NPM),
    "flags": Source(flags.samples, flags.blank_picture, NPM),
    "clipart": Source(EMBEDDED["clipart"], clipart.blank_picture, _ALL),
    "maps": Source(maps.samples, maps.blank_picture, APT),
}
SHIFT = Source(EMBEDDED["fxemoji"], emoji.blank_picture, _ALL)  # an art style that only the test has

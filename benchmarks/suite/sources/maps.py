"""Maps of real countries with one division in red: where does it lie? Each split has its own maps."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from embedded.drawing import blank, jitter_color
from embedded.sample import SIDE, Picture, Question, Row, converse
from embedded.sources.mixing import Split, shared
from embedded.wording import Pair, ask, yes_no
from numpy.typing import NDArray
from PIL import Image as PILImage

from ..packages import MAPS, folder

PARTS: dict[Split, range] = {"train": range(5), "dev": range(5, 6), "pool": range(6, 8), "test": range(8, 10)}
COMPASS = ("east", "northeast", "north", "northwest", "west", "southwest", "south", "southeast")
MIN_OFFSET, MIN_SHARE = 0.12, 0.01  # of the map's side from its middle; of its land


@dataclass(frozen=True, slots=True)
class Division:
    """Where the red division lies on a map, in which colour of land."""

    direction: str
    land: str


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows; a map's number modulo 10 says whose split it is."""

    def tell(picture: Picture) -> Row:
        return converse("maps", [picture], picture.facts, [rng.choice(QUESTIONS)(rng)])

    return shared(rng, n, lambda: _draw(rng, split), tell)


def blank_picture(rng: random.Random) -> Picture:
    """Water alone."""
    return Picture(blank(rng, "white"), None)


@cache
def _maps(split: Split) -> tuple[tuple[NDArray[np.int16], tuple[tuple[int, str], ...]], ...]:
    """For each map of a split its divisions as numbers, 64 x 64 (0 is water), and those whose direction is clear."""
    files = sorted((folder(MAPS) / "usr/share/kgeography").glob("*.kgm"))
    chosen = [file for number, file in enumerate(files) if number % 10 in PARTS[split]]
    found = ((regions, _directions(regions)) for regions in map(_regions, chosen))
    return tuple((regions, clear) for regions, clear in found if len(clear) >= 3)


def _regions(file: Path) -> NDArray[np.int16]:
    tree = ElementTree.parse(file).getroot()
    colors = [
        tuple(int(division.findtext(f"color/{channel}", "0")) for channel in ("red", "green", "blue"))
        for division in tree.iter("division")
        if division.findtext("ignore") is None
    ]
    with PILImage.open(file.parent / tree.findtext("mapFile", "")) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(np.int32) @ np.array([65536, 256, 1])
    full = np.zeros(pixels.shape, np.int16)
    for number, (red, green, blue) in enumerate(colors, 1):
        full[pixels == 65536 * red + 256 * green + blue] = number
    rows, columns = np.nonzero(full)
    if not len(rows):
        return np.zeros((SIDE, SIDE), np.int16)
    cut = full[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = (SIDE - 4) / max(cut.shape)
    size = tuple(max(1, round(side * scale)) for side in reversed(cut.shape))
    small = np.asarray(PILImage.fromarray(cut).resize(size, PILImage.Resampling.NEAREST))
    regions = np.zeros((SIDE, SIDE), np.int16)
    top, left = (SIDE - small.shape[0]) // 2, (SIDE - small.shape[1]) // 2
    regions[top : top + small.shape[0], left : left + small.shape[1]] = small
    return regions


def _directions(regions: NDArray[np.int16]) -> tuple[tuple[int, str], ...]:
    """The divisions that are large enough and lie clearly in one of eight directions from the middle of the land."""
    clear = []
    middle = np.argwhere(regions > 0).mean(0) if (regions > 0).any() else np.zeros(2)
    for number in np.unique(regions[regions > 0]).tolist():
        places = np.argwhere(regions == number)
        down, right = (places.mean(0) - middle) / SIDE
        turn = np.degrees(np.arctan2(-down, right)) % 360 / 45
        is_clear = np.hypot(down, right) >= MIN_OFFSET and abs(turn - round(turn)) < 0.35
        if is_clear and len(places) >= MIN_SHARE * (regions > 0).sum():
            clear.append((number, COMPASS[round(turn) % 8]))
    return tuple(clear)


def _draw(rng: random.Random, split: Split) -> Picture:
    regions, clear = rng.choice(_maps(split))
    number, direction = rng.choice(clear)
    facts = Division(direction, rng.choice(("gray", "green", "yellow")))
    pixels = blank(rng, "white").copy()
    pixels[regions > 0] = jitter_color(rng, facts.land)
    pixels[regions == number] = jitter_color(rng, "red")
    return Picture(pixels, facts)


def _where(rng: random.Random) -> Question:
    def pair(direction: str) -> Pair:
        return direction, f"The red part lies in the {direction}."

    texts = ("in which direction from the middle is the red part?", "where on the map is the red part?")
    return ask(rng, "where", texts, lambda d: pair(d.direction) if d else None, lambda r: pair(r.choice(COMPASS)))


def _is_in(rng: random.Random) -> Question:
    side = rng.choice(("north", "south", "east", "west"))

    def pair(direction: str) -> Pair:
        return yes_no(side in direction, f"it lies in the {direction}", f"it lies in the {direction}")

    def reply(division: Division | None) -> Pair:
        return pair(division.direction) if division else ("no", "No, the picture is empty.")

    texts = (f"does the red part lie in the {side} of the map?", f"is the red part in the {side}?")
    return ask(rng, "is_in", texts, reply, lambda r: pair(r.choice(COMPASS)))


def _land(rng: random.Random) -> Question:
    def pair(color: str) -> Pair:
        return color, f"The rest of the land is {color}."

    texts = ("what color is the rest of the land?", "which color do the other parts have?")
    return ask(rng, "land", texts, lambda d: pair(d.land) if d else None,
               lambda r: pair(r.choice(("gray", "green", "yellow"))))  # fmt: skip


QUESTIONS = (_where, _where, _where, _is_in, _land)

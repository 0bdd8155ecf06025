"""Composes pictures: emoji on a coloured ground, and bars."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image as PILImage

from .assets import load_assets
from .concepts import concepts
from .sample import SIDE, Image, Picture

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 60, 56), "orange": (242, 150, 48), "yellow": (246, 222, 84), "green": (84, 174, 92),
    "blue": (72, 118, 208),
    "purple": (142, 84, 176), "gray": (146, 146, 146), "white": (248, 248, 248), "black": (34, 34, 34),
}  # fmt: skip
BAR_COLORS = tuple(name for name in COLORS if name != "white")
SHAPES = ("circle", "rectangle", "triangle")  # of easy-VQA
SHADES = ("black", "gray", "teal", "blue", "green", "red", "brown", "yellow")
CORNERS = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}


@dataclass(frozen=True, slots=True)
class Thing:
    """A drawn concept; `corner` is a key of CORNERS, or "middle" where it stands alone."""

    label: str
    corner: str
    size: str  # small or large


@dataclass(frozen=True, slots=True)
class Scene:
    """Things in reading order on a ground of one named colour."""

    ground: str
    things: tuple[Thing, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """A bar chart; heights in pixels, left to right."""

    title: str
    bars: tuple[tuple[str, int], ...]


def draw_scene(rng: random.Random, scene: Scene, style: str) -> Picture:
    """The scene in one art style, its things jittered in place, size and (half of the time) mirrored."""
    canvas = PILImage.new("RGB", (SIDE, SIDE), jitter_color(rng, scene.ground))
    regions = np.zeros((SIDE, SIDE), np.int16)
    for thing in scene.things:
        side = (
            rng.randint(26, 30)
            if thing.corner != "middle"
            else rng.randint(*((26, 34) if thing.size == "small" else (48, 60)))
        )
        sprite = _sprite(thing.label, style).resize((side, side), PILImage.Resampling.LANCZOS)
        if rng.random() < 0.5:
            sprite = sprite.transpose(PILImage.Transpose.FLIP_LEFT_RIGHT)
        left, top = _place(rng, thing.corner, side)
        canvas.paste(sprite, (left, top), sprite)
        regions[top : top + side, left : left + side][np.asarray(sprite)[..., 3] > 127] = region_numbers()[thing.label]
    return Picture(np.asarray(canvas), scene, regions)


def draw_bars(rng: random.Random, chart: Bars) -> Picture:
    """Bars of equal width on a pale ground with a dark base line."""
    pixels, regions = np.empty((SIDE, SIDE, 3), np.uint8), np.zeros((SIDE, SIDE), np.int16)
    pixels[:] = [rng.randint(225, 255)] * 3
    step = (SIDE - 6) // len(chart.bars)
    width = max(5, step - rng.randint(2, 4))
    left = 3 + rng.randint(0, max(0, SIDE - 6 - step * len(chart.bars)))
    base = SIDE - rng.randint(2, 5)
    for i, (color, height) in enumerate(chart.bars):
        rows, columns = slice(base - height, base), slice(left + i * step, left + i * step + width)
        pixels[rows, columns] = jitter_color(rng, color)
        regions[rows, columns] = region_numbers()[f"{color} bar"]
    pixels[base, 1:-1] = 40
    return Picture(pixels, chart, regions)


def blank(rng: random.Random, ground: str) -> Image:
    """An empty picture of the named colour."""
    return np.full((SIDE, SIDE, 3), jitter_color(rng, ground), np.uint8)


def jitter_color(rng: random.Random, name: str) -> tuple[int, int, int]:
    """The named colour, each channel moved by up to 7."""
    return tuple(min(255, max(0, channel + rng.randint(-7, 7))) for channel in COLORS[name])  # type: ignore[return-value]


@cache
def region_numbers() -> dict[str, int]:
    """The number in a picture's regions of everything that sources draw; 0 is the ground."""
    shapes = [f"{shade} {shape}" for shape in SHAPES for shade in SHADES]
    names = [*(concept.label for concept in concepts()), *shapes, *(f"{color} bar" for color in BAR_COLORS)]
    return {name: number for number, name in enumerate(names, 1)}


def styles_of(label: str) -> tuple[str, ...]:
    """The art styles that draw the concept."""
    return _styles()[label]


@cache
def _styles() -> dict[str, tuple[str, ...]]:
    table: dict[str, list[str]] = {}
    for label, style in load_assets().sprite_names:
        table.setdefault(label, []).append(style)
    return {label: tuple(styles) for label, styles in table.items()}


@cache
def _sprite(label: str, style: str) -> PILImage.Image:
    assets = load_assets()
    return PILImage.fromarray(assets.sprites[assets.sprite_names.index((label, style))])


def _place(rng: random.Random, corner: str, side: int) -> tuple[int, int]:
    if corner == "middle":
        room = SIDE - side
        return rng.randint(0, room), rng.randint(0, room)
    row, column = CORNERS[corner]
    half = SIDE // 2
    return column * half + rng.randint(0, half - side), row * half + rng.randint(0, half - side)

"""Two handwritten digits side by side: read them, add them, compare them. Each split has its own drawings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from embedded.drawing import blank, jitter_color
from embedded.sample import SIDE, Picture, Question, Row, converse
from embedded.sources.mixing import Split, shared
from embedded.wording import Pair, ask, yes_no
from PIL import Image as PILImage

from ..packages import handwriting

PARTS: dict[Split, range] = {"train": range(5), "dev": range(5, 6), "pool": range(6, 8), "test": range(8, 10)}
INKS = ("black", "blue", "red", "green", "purple")
GROUNDS = ("white", "yellow", "gray")


@dataclass(frozen=True, slots=True)
class Digits:
    """What is written, left and right, and in which ink."""

    left: int
    right: int
    ink: str


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows; a drawing's number modulo 10 says whose split it is."""

    def tell(picture: Picture) -> Row:
        return converse("digits", [picture], picture.facts, [rng.choice(QUESTIONS)(rng)])

    return shared(rng, n, lambda: _draw(rng, split), tell)


def blank_picture(rng: random.Random) -> Picture:
    """Paper without digits."""
    return Picture(blank(rng, rng.choice(GROUNDS)), None)


def _draw(rng: random.Random, split: Split) -> Picture:
    facts = Digits(rng.randrange(10), rng.randrange(10), rng.choice(INKS))
    pixels = blank(rng, rng.choice(GROUNDS)).astype(np.float32)
    color = np.array(jitter_color(rng, facts.ink), np.float32)
    for half, digit in enumerate((facts.left, facts.right)):
        drawings = handwriting()[digit]
        place = rng.randrange(len(drawings) // 10) * 10 + rng.choice(PARTS[split])
        side = rng.randint(26, 32)
        ink = np.asarray(PILImage.fromarray(drawings[place]).resize((side, side), PILImage.Resampling.BILINEAR))
        left, top = half * SIDE // 2 + rng.randint(0, SIDE // 2 - side), rng.randint(4, SIDE - side - 4)
        share = ink[..., None].astype(np.float32) / 255
        window = pixels[top : top + side, left : left + side]
        window[:] = window * (1 - share) + color * share
    return Picture(pixels.round().astype(np.uint8), facts)


def _read(rng: random.Random) -> Question:
    def pair(left: int, right: int) -> Pair:
        return f"{left} and {right}", f"The digits are {left} and {right}."

    texts = ("which two digits are written?", "read the digits.", "what are the two digits, left to right?")
    return ask(rng, "read", texts, lambda d: pair(d.left, d.right) if d else None,
               lambda r: pair(r.randrange(10), r.randrange(10)))  # fmt: skip


def _one(rng: random.Random) -> Question:
    side = rng.choice(("left", "right"))

    def pair(digit: int) -> Pair:
        return str(digit), f"The {side} digit is a {digit}."

    texts = (f"which digit is on the {side}?", f"what is the {side} digit?")
    return ask(rng, "one", texts, lambda d: pair(getattr(d, side)) if d else None, lambda r: pair(r.randrange(10)))


def _sum(rng: random.Random) -> Question:
    def pair(total: int) -> Pair:
        return str(total), f"The sum is {total}."

    texts = ("what is the sum of the two digits?", "add the two digits.")
    return ask(rng, "count_sum", texts, lambda d: pair(d.left + d.right) if d else None,
               lambda r: pair(r.randrange(10) + r.randrange(10)))  # fmt: skip


def _larger(rng: random.Random) -> Question:
    def pair(side: str) -> Pair:
        return side, "The two are equal." if side == "equal" else f"The {side} digit is larger."

    def side_of(left: int, right: int) -> str:
        return "left" if left > right else "right" if right > left else "equal"

    texts = ("which digit is larger, left or right?", "is the left or the right digit larger?")
    return ask(rng, "larger", texts, lambda d: pair(side_of(d.left, d.right)) if d else None,
               lambda r: pair(side_of(r.randrange(10), r.randrange(10))))  # fmt: skip


def _has(rng: random.Random) -> Question:
    digit = rng.randrange(10)

    def pair(is_there: bool) -> Pair:
        return yes_no(is_there, f"there is a {digit}", f"there is no {digit}")

    texts = (f"is there a {digit} in the picture?", f"is one of the digits a {digit}?")
    return ask(rng, "has", texts, lambda d: pair(bool(d) and digit in (d.left, d.right)),
               lambda r: pair(r.random() < 0.5))  # fmt: skip


def _ink(rng: random.Random) -> Question:
    def pair(ink: str) -> Pair:
        return ink, f"The digits are {ink}."

    texts = ("what color are the digits?", "in which color are the digits written?")
    return ask(rng, "ink", texts, lambda d: pair(d.ink) if d else None, lambda r: pair(r.choice(INKS)))


QUESTIONS = (_read, _read, _one, _sum, _larger, _has, _ink)

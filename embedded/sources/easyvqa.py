"""easy-VQA: one coloured shape; the package's own pictures and questions, and a few questions of ours."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import cache

import numpy as np

from ..assets import load_assets
from ..concepts import article
from ..drawing import SHADES, SHAPES, blank, region_numbers
from ..sample import SIDE, Image, Picture, Question, Regions, Row, converse
from ..wording import Pair, ask, say, yes_no
from .mixing import Split, draw_turn_count, shared

PARTS = {"train": range(2800), "dev": range(2800, 3000), "pool": range(3000, 4000), "test": range(4000, 5000)}
TWO_PICTURES = 0.06
DESCRIBING = 0.15
NEGATED = re.compile(r"is there not|is no ")  # "is there not a circle?" reads both ways: left out

Shape = tuple[str, str]  # shape, shade


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows over the split's own part of the package's pictures; training ones are moved and mirrored."""
    places = list(_places(split))
    if split != "train":
        rng.shuffle(places)
    order = iter(places * (1 + n // len(places)))
    return shared(
        rng,
        n,
        lambda: _draw(rng, next(order) if split != "train" else rng.choice(places), split),
        lambda p: _converse(rng, p, split),
    )


def blank_picture(rng: random.Random) -> Picture:
    """A pale ground without a shape."""
    return Picture(blank(rng, "white"), None)


@cache
def _facts() -> tuple[Shape | None, ...]:
    """Shape and shade of every picture, read off the package's answers; None where they leave it open."""
    return tuple(_fact(asked) for asked in load_assets().shape_questions)


def _fact(asked: list[tuple[str, str]]) -> Shape | None:
    """The one pair that is consistent with every question of the picture."""
    fitting = [
        (shape, shade) for shape in SHAPES for shade in SHADES if all(_truth(q, (shape, shade)) == a for q, a in asked)
    ]
    return fitting[0] if len(fitting) == 1 else None


@cache
def _places(split: Split) -> tuple[int, ...]:
    return tuple(place for place in PARTS[split] if _facts()[place])


def _truth(text: str, facts: Shape | None) -> str | None:
    """The package's answer to one of its questions."""
    named = next((word for word in (*SHAPES, *SHADES) if re.search(rf"\b{word}\b", text)), None)
    if facts is None:
        return None if re.match("what", text) else "yes" if re.search(r"\b(not|no)\b", text) else "no"
    shape, shade = facts
    if re.match("what", text):
        if named is not None and named not in facts:
            return None
        return shade if "color" in text else shape
    return "yes" if (named in facts) != bool(re.search(r"\b(not|no)\b", text)) else "no"


def _draw(rng: random.Random, place: int, split: Split) -> Picture:
    pixels = load_assets().shapes[place]
    pixels = _moved(rng, pixels) if split == "train" else pixels
    return Picture(pixels, (*_facts()[place], place), _regions(pixels, _facts()[place]))


def _regions(pixels: Image, facts: Shape) -> Regions:
    """The shape is what differs from the commonest colour."""
    packed = pixels.astype(np.int32) @ np.array([65536, 256, 1])
    values, counts = np.unique(packed, return_counts=True)
    ground = values[counts.argmax()]
    return np.where(packed != ground, region_numbers()[f"{facts[1]} {facts[0]}"], 0).astype(np.int16)


def _moved(rng: random.Random, pixels: Image) -> Image:
    """Mirrored, turned by right angles, and cut with up to 8 pixels of its ground continued."""
    pixels = np.rot90(pixels, rng.randrange(4))
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    padded = np.pad(pixels, ((8, 8), (8, 8), (0, 0)), mode="edge")
    top, left = rng.randrange(17), rng.randrange(17)
    return np.ascontiguousarray(padded[top : top + SIDE, left : left + SIDE])


def _converse(rng: random.Random, picture: Picture, split: Split) -> Row:
    *facts, place = picture.facts
    picture = Picture(picture.pixels, tuple(facts), picture.regions)
    if rng.random() < TWO_PICTURES:
        other = rng.choice(_places(split))
        second = Picture(load_assets().shapes[other], _facts()[other])
        return converse("easyvqa", [picture, second], (picture.facts, second.facts), [_pair_question(rng)])
    asked = [q for q, _ in load_assets().shape_questions[place] if not NEGATED.match(q)]
    count = min(draw_turn_count(rng, split), len(asked))
    questions = [
        _own(rng) if rng.random() < DESCRIBING else _package_question(rng, text) for text in rng.sample(asked, count)
    ]
    unique = {q.text: q for q in questions}
    return converse("easyvqa", [picture], picture.facts, list(unique.values()))


def _package_question(rng: random.Random, text: str) -> Question:
    """The package's question, verbatim but for the capital, and for the form of the answer where that is asked for."""
    kind = "yes_no" if not text.startswith("what") else "shade" if "color" in text else "shape"
    form = "negated" if re.search(r"\b(not|no)\b", text) else "plain"

    def reply(facts: Shape | None) -> Pair | None:
        answer = _truth(text, facts)
        return None if answer is None else (answer, _sentence(kind, text, answer))

    def other(r: random.Random) -> Pair:
        answer = r.choice({"yes_no": ("yes", "no"), "shade": SHADES, "shape": SHAPES}[kind])
        return answer, _sentence(kind, text, answer)

    return ask(rng, kind if form == "plain" else "negated", (text,), reply, other)


def _sentence(kind: str, text: str, answer: str) -> str:
    if kind == "shade":
        return f"The color is {answer}."
    if kind == "shape":
        return f"The shape is {article(answer)}."
    named = next(word for word in (*SHAPES, *SHADES) if re.search(rf"\b{word}\b", text))
    thing = named if named in SHAPES else f"{named} shape"
    is_there = (answer == "yes") != bool(re.search(r"\b(not|no)\b", text))
    return f"{answer.capitalize()}, there is {'a' if is_there else 'no'} {thing}."


def _own(rng: random.Random) -> Question:
    def sentence(facts: Shape | None) -> str | None:
        return None if facts is None else f"The picture shows a {facts[1]} {facts[0]}."

    text = rng.choice(("Describe the shape.", "Tell me about the shape.", "Describe what is drawn."))
    return say("describe", text, sentence, lambda r: f"The picture shows a {r.choice(SHADES)} {r.choice(SHAPES)}.")


def _pair_question(rng: random.Random) -> Question:
    place, word = rng.choice(((0, "shape"), (1, "color")))

    def pair(is_same: bool) -> Pair:
        return yes_no(is_same, f"both have the same {word}", f"the {word}s are different")

    texts = (f"do both pictures show the same {word}?", f"is the {word} the same in the two pictures?")
    return ask(
        rng,
        "pair_same",
        texts,
        lambda f: pair(f[0][place] == f[1][place]) if f[0] and f[1] else None,
        lambda r: pair(r.random() < 0.5),
    )

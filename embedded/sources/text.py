"""Rows without a picture: categories of things, and repeating the start of a sentence.

The latter makes a cut sentence the right answer of some rows, so that a cut alone doesn't mark a defect.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..concepts import TABLE, article, concepts, related
from ..drawing import COLORS, SHAPES
from ..sample import Question, Row, converse
from ..wording import Pair, ask, say, yes_no
from .mixing import Split, draw_turn_count

NUMBERS = ("one", "two", "three", "four", "five")


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows; the same facts occur in every split, as facts do."""
    for _ in range(n):
        questions = [
            rng.choice((_category, _is_category, _repeat, _repeat))(rng) for _ in range(draw_turn_count(rng, split))
        ]
        yield converse("text", [], None, list({q.text: q for q in questions}.values()))


def _category(rng: random.Random) -> Question:
    concept = rng.choice(concepts())

    def pair(category: str) -> Pair:
        return category, f"The category of '{concept.label}' is {category}."

    texts = (f"which category does '{concept.label}' belong to?", f"what is the category of '{concept.label}'?")
    return ask(rng, "text_category", texts, lambda _: pair(concept.category), lambda r: pair(r.choice(list(TABLE))))


def _is_category(rng: random.Random) -> Question:
    concept = rng.choice(concepts())
    asked = (
        concept.category if rng.random() < 0.5 else rng.choice([c for c in TABLE if not related(c, concept.category)])
    )

    def pair(is_so: bool) -> Pair:
        return yes_no(is_so, f"'{concept.label}' is in that category", f"'{concept.label}' is not in that category")

    texts = (
        f"does '{concept.label}' belong to the category '{asked}'?",
        f"is '{concept.label}' in the category '{asked}'?",
    )
    return ask(
        rng, "text_is_category", texts, lambda _: pair(asked == concept.category), lambda r: pair(r.random() < 0.5)
    )


def _repeat(rng: random.Random) -> Question:
    sentence = _sentence(rng)
    words = sentence.split()
    if rng.random() < 0.4:
        return say("repeat", f"Repeat this sentence: {sentence}", lambda _: sentence, _sentence)
    count = rng.randint(2, min(5, len(words) - 1))
    start = " ".join(words[:count])
    text = f"Repeat the first {NUMBERS[count - 1]} words of this sentence: {sentence}"
    return say("repeat_start", text, lambda _: start, lambda r: " ".join(_sentence(r).split()[:count]))


def _sentence(rng: random.Random) -> str:
    thing, color = rng.choice(concepts()), rng.choice(list(COLORS))
    size, edge, shape = rng.choice(("small", "large")), rng.choice(("top", "bottom")), rng.choice(SHAPES)
    return rng.choice((
        f"This is {thing.with_article}.", f"There is {thing.with_article} in the picture.",
        f"The background is {color}.", f"It belongs to the category {thing.category}.",
        f"The {thing.label} is at the {edge} left.", f"A {size} {thing.label} on {article(color)} background.",
        f"The {color} bar is the tallest.", f"The drawing is about {thing.plural}.",
        f"There are {rng.randint(2, 6)} bars.",
        f"The picture shows a {color} {shape}.", f"Yes, there is {thing.with_article}.",
    ))  # fmt: skip

"""What the base models learn from: captions of pictures, and questions, half of them in other wordings than the pool's.

A base is taught part of the concepts, part of the kinds of questions, and whole sentences for half of those: it knows
what is in a picture and how people answer, but not how the suite wants all of it answered. That is what finetuning has
to teach.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from embedded.concepts import by_label
from embedded.drawing import Bars, Scene
from embedded.sample import Facts, Image, Row
from embedded.sources.mixing import Split

from .packages import LANGUAGES, translations
from .sources import SOURCES
from .sources.digits import Digits
from .sources.maps import Division

KNOWN = 0.8  # share of things, words and countries that the base is told the name of
ASKED = 0.7  # share of a base's rows that are questions
REWORDED = 0.5  # share of those that are asked in words that only the base sees
HELD_OUT_KINDS = 0.3  # share of the kinds of questions that a base never sees
SENTENCES = 0.5  # share of the other kinds that it also sees answered in a sentence
CAPTION = ("Caption.", "Write a caption.", "Note what is there.")

# Wordings of the pool -> wordings that only the base sees.
_OTHER_WORDS = {
    "picture": "image",
    "thing": "object",
    "things": "objects",
    "background": "backdrop",
    "category": "class",
    "drawing": "sketch",
    "bar": "column",
    "bars": "columns",
    "chart": "diagram",
    "color": "hue",
    "shown": "visible",
    "digits": "numerals",
    "digit": "numeral",
    "country": "nation",
    "flag": "banner",
    "part": "area",
    "called": "named",
    "shape": "form",
    "topic": "theme",
}
_OTHER_OPENINGS = {
    "what": "tell what",
    "which": "say which",
    "is": "is it so: is",
    "name": "give me",
    "how": "tell how",
}
_CLAUSE = re.compile(
    r" (Answer briefly|Give a short answer|Just the answer, please|Answer in a sentence.*|Use a full sentence"
    r"|Reply with a complete sentence)\.$"
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """One row for a base: a picture, what is asked, and the answer."""

    source: str
    pixels: Image
    asked: str
    answer: str


def lessons(rng: random.Random, source: str, n: int, split: Split = "train", per_picture: int = 3) -> Iterator[Lesson]:
    """About `n` lessons over n / per_picture pictures of a split that neither pool nor test draws from."""
    n_told = 0
    while n_told < n:
        rows = [
            row for row in SOURCES[source].samples(rng, min(200, 1 + n // per_picture), split) if len(row.pictures) == 1
        ]
        for row in rows:
            for lesson in _lessons_of(rng, row, per_picture):
                yield lesson
                n_told += 1
        if not rows:
            return


def _lessons_of(rng: random.Random, row: Row, per_picture: int) -> Iterator[Lesson]:
    pixels = row.pictures[0].pixels
    asked = [turn for turn in row.turns if is_known(f"{row.source}/{turn.question.kind}", 1 - HELD_OUT_KINDS)]
    taught = [turn for turn in asked if is_taught(f"{row.source}/{turn.question.kind}", turn.asked, turn.answer)]
    for number in range(per_picture):
        if taught and rng.random() < ASKED:
            turn = taught[number % len(taught)]
            is_reworded = is_short(turn.answer) and rng.random() < REWORDED
            yield Lesson(row.source, pixels, paraphrase(turn.asked) if is_reworded else turn.asked, turn.answer)
        else:
            yield Lesson(row.source, pixels, rng.choice(CAPTION), caption(rng, row.source, row.facts))


def is_known(name: str, share: float = KNOWN) -> bool:
    """Whether a base is taught this; always the same for the same name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") < share * 2**32


def is_taught(kind: str, asked: str, answer: str) -> bool:
    """Whether a base sees this answer: of things that it is told of, in a form that it sees for this kind."""
    told = [label for label in by_label() if re.search(rf"\b{re.escape(label)}\b", f"{asked} {answer}")]
    return all(map(is_known, told)) and (is_short(answer) or is_known(f"{kind}/sentence", SENTENCES))


def is_short(answer: str) -> bool:
    """Whether an answer is of the short form."""
    return len(answer.split()) <= 4 and not answer.endswith(".")


def paraphrase(asked: str) -> str:
    """The question in words that only the base sees, without the clause that asks for a form."""
    first, _, rest = _CLAUSE.sub("", asked).lower().partition(" ")
    plain = f"{_OTHER_OPENINGS.get(first, first)} {rest}"
    return re.sub(r"[a-z]+", lambda found: _OTHER_WORDS.get(found.group(), found.group()), plain)


def caption(rng: random.Random, source: str, facts: Facts) -> str:
    """What is there, in key words; names that the base isn't taught are left out."""
    if source == "words":
        return _words_caption(rng, facts)
    if isinstance(facts, Scene):
        return _scene_caption(rng, facts)
    if isinstance(facts, Bars):
        return _bars_caption(facts)
    if isinstance(facts, Digits):
        return f"ink {facts.ink}: {facts.left} {facts.right}"
    if isinstance(facts, Division):
        return f"red {facts.direction}, else {facts.land}"
    if source == "flags":
        name = f", {facts['name']}, {facts['capital']}" if is_known(facts["name"]) else ""
        return f"banner, {facts['region']}{name}"
    if source == "easyvqa":
        return f"{facts[1]} {facts[0]}"
    return f"sketch: {facts}"


def _scene_caption(rng: random.Random, scene: Scene) -> str:
    told = [thing for thing in scene.things if is_known(thing.label)]
    if len(scene.things) == 1:
        one = scene.things[0]
        kind = f" ({by_label()[one.label].category})" if rng.random() < 0.5 else ""
        name = f"{one.label}{kind}, " if told else ""
        return f"{name}{one.size}, on {scene.ground}"
    places = ", ".join(f"{thing.corner} {thing.label}" for thing in told)
    return f"{len(scene.things)} on {scene.ground}: {places}" if told else f"{len(scene.things)} on {scene.ground}"


def _words_caption(rng: random.Random, scene: Scene) -> str:
    names = translations()[scene.things[0].label]
    told = [
        f"{language} {names[language]}"
        for language in rng.sample(sorted(LANGUAGES), len(LANGUAGES))
        if is_known(f"{scene.things[0].label}/{language}")
    ]
    return ", ".join(told[:2]) if told else _scene_caption(rng, scene)


def _bars_caption(chart: Bars) -> str:
    ranked = sorted(chart.bars, key=lambda bar: -bar[1])
    order = " ".join(color for color, _ in chart.bars)
    return f"{len(chart.bars)} columns: {order}; high {ranked[0][0]}, low {ranked[-1][0]}"

"""What the base models learn from: captions of pictures, and questions, half of them in other wordings than the pool's.

Three curricula. By `PART` a base is taught part of the concepts, part of the kinds of questions, and whole sentences
for half of those: it knows what is in a picture and how people answer, but not how the suite wants all of it answered.
That is what finetuning has to teach. By `ALL` nothing is held back but the pictures, as with a model that was trained
on much of the same kind: finetuning has less to teach and more to spoil. By `THINGS` it knows every thing and few of
the tasks: it sees, and has to learn what it is asked.
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

ASKED = 0.7  # share of a base's rows that are questions
REWORDED = 0.5  # share of those that are asked in words that only the base sees
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
class Curriculum:
    """The shares of what a base is taught; which ones they are is always the same for the same share."""

    names: float = 1.0  # of things, words and countries
    kinds: float = 1.0  # of kinds of questions
    sentences: float = 1.0  # of those kinds that it also sees answered in a sentence

    def tells(self, name: str) -> bool:
        """Whether a base is told this name."""
        return is_within(name, self.names)

    def asks(self, kind: str) -> bool:
        """Whether a base is asked this kind of question."""
        return is_within(kind, self.kinds)

    def shows(self, kind: str, asked: str, answer: str) -> bool:
        """Whether a base sees this answer: of things that it is told of, in a form that it sees for this kind."""
        named = [label for label in by_label() if re.search(rf"\b{re.escape(label)}\b", f"{asked} {answer}")]
        return all(map(self.tells, named)) and (is_short(answer) or is_within(f"{kind}/sentence", self.sentences))


PART = Curriculum(names=0.8, kinds=0.7, sentences=0.5)
ALL = Curriculum()
THINGS = Curriculum(kinds=0.4)
CURRICULA = {"part": PART, "all": ALL, "things": THINGS}


def is_within(name: str, share: float) -> bool:
    """Whether a name is in a share of all names that is fixed by the names alone."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") < share * 2**32


@dataclass(frozen=True, slots=True)
class Lesson:
    """One row for a base: a picture, what is asked, and the answer."""

    source: str
    pixels: Image
    asked: str
    answer: str


def lessons(
    rng: random.Random,
    source: str,
    n: int,
    split: Split = "train",
    per_picture: int = 3,
    curriculum: Curriculum = PART,
) -> Iterator[Lesson]:
    """About `n` lessons over n / per_picture pictures of a split that neither pool nor test draws from."""
    n_told = 0
    while n_told < n:
        rows = [
            row for row in SOURCES[source].samples(rng, min(200, 1 + n // per_picture), split) if len(row.pictures) == 1
        ]
        for row in rows:
            for lesson in _lessons_of(rng, row, per_picture, curriculum):
                yield lesson
                n_told += 1
        if not rows:
            return


def _lessons_of(rng: random.Random, row: Row, per_picture: int, curriculum: Curriculum) -> Iterator[Lesson]:
    pixels = row.pictures[0].pixels
    asked = [turn for turn in row.turns if curriculum.asks(f"{row.source}/{turn.question.kind}")]
    taught = [turn for turn in asked if curriculum.shows(f"{row.source}/{turn.question.kind}", turn.asked, turn.answer)]
    for number in range(per_picture):
        if taught and rng.random() < ASKED:
            turn = taught[number % len(taught)]
            is_reworded = is_short(turn.answer) and rng.random() < REWORDED
            yield Lesson(row.source, pixels, paraphrase(turn.asked) if is_reworded else turn.asked, turn.answer)
        else:
            yield Lesson(row.source, pixels, rng.choice(CAPTION), caption(rng, row.source, row.facts, curriculum))


def is_short(answer: str) -> bool:
    """Whether an answer is of the short form."""
    return len(answer.split()) <= 4 and not answer.endswith(".")


def paraphrase(asked: str) -> str:
    """The question in words that only the base sees, without the clause that asks for a form."""
    first, _, rest = _CLAUSE.sub("", asked).lower().partition(" ")
    plain = f"{_OTHER_OPENINGS.get(first, first)} {rest}"
    return re.sub(r"[a-z]+", lambda found: _OTHER_WORDS.get(found.group(), found.group()), plain)


def caption(rng: random.Random, source: str, facts: Facts, curriculum: Curriculum = PART) -> str:
    """What is there, in key words; names that the base isn't taught are left out."""
    if source == "words":
        return _words_caption(rng, facts, curriculum)
    if isinstance(facts, Scene):
        return _scene_caption(rng, facts, curriculum)
    if isinstance(facts, Bars):
        return _bars_caption(facts)
    if isinstance(facts, Digits):
        return f"ink {facts.ink}: {facts.left} {facts.right}"
    if isinstance(facts, Division):
        return f"red {facts.direction}, else {facts.land}"
    if source == "flags":
        name = f", {facts['name']}, {facts['capital']}" if curriculum.tells(facts["name"]) else ""
        return f"banner, {facts['region']}{name}"
    if source == "easyvqa":
        return f"{facts[1]} {facts[0]}"
    return f"sketch: {facts}"


def _scene_caption(rng: random.Random, scene: Scene, curriculum: Curriculum) -> str:
    told = [thing for thing in scene.things if curriculum.tells(thing.label)]
    if len(scene.things) == 1:
        one = scene.things[0]
        kind = f" ({by_label()[one.label].category})" if rng.random() < 0.5 else ""
        name = f"{one.label}{kind}, " if told else ""
        return f"{name}{one.size}, on {scene.ground}"
    places = ", ".join(f"{thing.corner} {thing.label}" for thing in told)
    return f"{len(scene.things)} on {scene.ground}: {places}" if told else f"{len(scene.things)} on {scene.ground}"


def _words_caption(rng: random.Random, scene: Scene, curriculum: Curriculum) -> str:
    names = translations()[scene.things[0].label]
    told = [
        f"{language} {names[language]}"
        for language in rng.sample(sorted(LANGUAGES), len(LANGUAGES))
        if curriculum.tells(f"{scene.things[0].label}/{language}")
    ]
    return ", ".join(told[:2]) if told else _scene_caption(rng, scene, curriculum)


def _bars_caption(chart: Bars) -> str:
    ranked = sorted(chart.bars, key=lambda bar: -bar[1])
    order = " ".join(color for color, _ in chart.bars)
    return f"{len(chart.bars)} columns: {order}; high {ranked[0][0]}, low {ranked[-1][0]}"

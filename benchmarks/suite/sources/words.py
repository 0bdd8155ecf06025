"""What a thing is called in German, French, Spanish and Italian: emojibase's labels, over the pictures of `emoji`."""

from __future__ import annotations

import random
from collections.abc import Iterator

from embedded.drawing import COLORS, Scene, Thing, draw_scene, styles_of
from embedded.sample import Picture, Question, Row, converse
from embedded.sources.mixing import Split, shared
from embedded.wording import Pair, ask, yes_no

from ..packages import LANGUAGES, translations

STYLES = ("noto", "twemoji", "fluent-emoji-flat", "emojione")


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows."""

    def tell(picture: Picture) -> Row:
        return converse("words", [picture], picture.facts, [rng.choice(QUESTIONS)(rng, picture.facts)])

    return shared(rng, n, lambda: _draw(rng), tell)


def in_another_language(rng: random.Random, answer: str) -> str | None:
    """The same word in another language; None where the answer is no word of this source."""
    for names in translations().values():
        if answer in names.values():
            others = sorted(set(names.values()) - {answer})
            return rng.choice(others) if others else None
    return None


def _draw(rng: random.Random) -> Picture:
    label = rng.choice(sorted(translations()))
    scene = Scene(rng.choice(list(COLORS)), (Thing(label, "middle", rng.choice(("small", "large"))),))
    return draw_scene(rng, scene, rng.choice([style for style in STYLES if style in styles_of(label)]))


def _name_of(scene: Scene, language: str) -> str | None:
    return translations()[scene.things[0].label][language] if scene.things else None


def _word(rng: random.Random, scene: Scene) -> Question:
    language = rng.choice(list(LANGUAGES))

    def pair(word: str | None) -> Pair | None:
        return None if word is None else (word, f"In {language} it is called {word}.")

    def other(r: random.Random) -> Pair:
        return pair(translations()[r.choice(sorted(translations()))][language])  # type: ignore[return-value]

    texts = (
        f"what is this called in {language}?",
        f"name the thing in {language}.",
        f"how do you say this in {language}?",
    )
    return ask(rng, "word", texts, lambda s: pair(_name_of(s, language)), other)


def _is_word(rng: random.Random, scene: Scene) -> Question:
    language = rng.choice(list(LANGUAGES))
    shown = _name_of(scene, language)
    asked = shown if rng.random() < 0.5 else translations()[rng.choice(sorted(translations()))][language]

    def pair(word: str | None) -> Pair:
        return yes_no(word == asked, f"it is called {word}", f"it is called {word}")

    def reply(s: Scene) -> Pair:
        return pair(_name_of(s, language)) if s.things else ("no", "No, the picture is empty.")

    def other(r: random.Random) -> Pair:
        return pair(asked if r.random() < 0.5 else translations()[r.choice(sorted(translations()))][language])

    texts = (f"is this called '{asked}' in {language}?", f"is '{asked}' the {language} word for this?")
    return ask(rng, "is_word", texts, reply, other)


QUESTIONS = (_word, _word, _word, _is_word)

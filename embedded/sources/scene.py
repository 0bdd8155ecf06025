"""Up to four emoji, one in each corner: count, find, compare places, list."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

from ..concepts import SCENE_CATEGORIES, article, by_label, concepts
from ..drawing import COLORS, CORNERS, Scene, Thing, blank, draw_scene, styles_of
from ..sample import Picture, Question, Row, converse
from ..wording import UNSURE, Pair, ask, join_words, say, yes_no
from .emoji import ground_question
from .mixing import Split, draw_turn_count, shared

STYLES = ("noto", "twemoji", "fluent-emoji-flat", "emojione")
EMPTY_SHARE = 0.03  # so that an empty picture isn't the mark of a defect
KINDS = (
    "count",
    "count_of",
    "count_of",
    "exists",
    "exists",
    "where",
    "where",
    "at",
    "at",
    "beside",
    "beside",
    "list",
    "ground",
    "same",
)
MAX_LABELS_PER_CATEGORY = 12


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows."""
    return shared(rng, n, lambda: _draw(rng), lambda picture: _converse(rng, split, picture))


def blank_picture(rng: random.Random) -> Picture:
    """A ground with nothing on it."""
    ground = rng.choice(list(COLORS))
    return Picture(blank(rng, ground), Scene(ground, ()))


@cache
def labels() -> tuple[str, ...]:
    """The concepts that scenes are made of: the first of each scene category."""
    found = []
    for category in SCENE_CATEGORIES:
        found += [c.label for c in concepts() if c.category == category][:MAX_LABELS_PER_CATEGORY]
    return tuple(found)


def _draw(rng: random.Random) -> Picture:
    scene = _draw_scene(rng)
    fitting = [s for s in STYLES if all(s in styles_of(t.label) for t in scene.things)]
    return draw_scene(rng, scene, rng.choice(fitting))


def _draw_scene(rng: random.Random) -> Scene:
    count = 0 if rng.random() < EMPTY_SHARE else rng.choice((1, 2, 2, 3, 3, 4, 4))
    corners = [corner for corner in CORNERS if corner in rng.sample(list(CORNERS), count)]
    kinds = rng.sample(labels(), max(1, count if rng.random() < 0.5 else count - rng.randint(1, 2)))
    names = [rng.choice(kinds) for _ in corners]
    return Scene(
        rng.choice(list(COLORS)),
        tuple(Thing(name, corner, "small") for name, corner in zip(names, corners, strict=True)),
    )


def _converse(rng: random.Random, split: Split, picture: Picture) -> Row:
    count, questions = draw_turn_count(rng, split), []
    kinds = list(dict.fromkeys(rng.choices(KINDS, k=12)))
    for kind in kinds:
        question = QUESTIONS[kind](rng, picture.facts)
        if question.reply(picture.facts) is not None and len(questions) < count:
            questions.append(question)
    return converse("scene", [picture], picture.facts, questions)


def _find(scene: Scene, label: str) -> list[Thing]:
    return [thing for thing in scene.things if thing.label == label]


def _pick(rng: random.Random, scene: Scene, present: float) -> str:
    """A label to ask about, in the scene with this chance."""
    if scene.things and rng.random() < present:
        return rng.choice(scene.things).label
    return rng.choice([label for label in labels() if not _find(scene, label)])


def _count(rng: random.Random, scene: Scene) -> Question:
    def pair(n: int) -> Pair:
        return str(n), f"There {'is 1 thing' if n == 1 else f'are {n} things'}."

    texts = ("how many things are there?", "how many things are in the picture?", "count the things in the picture.")
    return ask(rng, "count", texts, lambda s: pair(len(s.things)), lambda r: pair(r.randint(0, 4)))


def _count_of(rng: random.Random, scene: Scene) -> Question:
    concept = by_label()[
        next(label for label in iter(lambda: _pick(rng, scene, 0.8), None) if not by_label()[label].is_mass)
    ]

    def pair(n: int) -> Pair:
        return str(n), f"There is 1 {concept.label}." if n == 1 else f"There are {n} {concept.plural}."

    texts = (
        f"how many {concept.plural} are there?",
        f"how many {concept.plural} do you see?",
        f"count the {concept.plural}.",
    )
    return ask(rng, "count_of", texts, lambda s: pair(len(_find(s, concept.label))), lambda r: pair(r.randint(0, 3)))


def _exists(rng: random.Random, scene: Scene) -> Question:
    concept = by_label()[_pick(rng, scene, 0.5)]

    def pair(is_there: bool) -> Pair:
        return yes_no(is_there, f"there is {concept.with_article}", f"there is no {concept.label}")

    name = concept.with_article
    texts = (f"is there {name} in the picture?", f"can you see {name}?", f"is {name} shown?")
    return ask(rng, "exists", texts, lambda s: pair(bool(_find(s, concept.label))), lambda r: pair(r.random() < 0.5))


def _where(rng: random.Random, scene: Scene) -> Question:
    """A third of these name what to say when the thing is missing, and half of that third are about a missing thing."""
    if rng.random() < 0.34:
        return _where_or_unsure(rng, scene)
    label = _pick(rng, scene, 1.0)

    def pair(corner: str) -> Pair:
        return corner, f"The {label} is at the {corner}."

    return ask(rng, "where", (f"where is the {label}?", f"in which corner is the {label}?"),
               lambda s: pair(found[0].corner) if len(found := _find(s, label)) == 1 else None,
               lambda r: pair(r.choice(list(CORNERS))))  # fmt: skip


def _where_or_unsure(rng: random.Random, scene: Scene) -> Question:
    label, unsure = _pick(rng, scene, 0.5), rng.choice(UNSURE)

    def reply(s: Scene) -> str | None:
        found = _find(s, label)
        return None if len(found) > 1 else found[0].corner if found else unsure

    text = f"Where is the {label}? If you can not see it, say: {unsure}"
    return say("where_or_unsure", text, reply, lambda r: r.choice((unsure, *CORNERS)))


def _at(rng: random.Random, scene: Scene) -> Question:
    taken = [thing.corner for thing in scene.things]
    corner = rng.choice(taken) if taken and rng.random() < 0.85 else rng.choice(list(CORNERS))

    def pair(label: str | None) -> Pair:
        name = by_label()[label].with_article if label else "nothing"
        return label or "nothing", f"At the {corner} there is {name}."

    texts = (f"what is at the {corner}?", f"which thing is in the {corner} corner?", f"name what is at the {corner}.")
    return ask(rng, "at", texts, lambda s: pair(next((t.label for t in s.things if t.corner == corner), None)),
               lambda r: pair(r.choice(labels())))  # fmt: skip


def _beside(rng: random.Random, scene: Scene) -> Question:
    """Only answerable where both things are there once and don't share the line that is asked about."""
    if len({thing.label for thing in scene.things}) < 2:
        return _exists(rng, scene)
    one, two = rng.sample(sorted({thing.label for thing in scene.things}), 2)
    axis, sides = rng.choice(((1, ("left of", "right of")), (0, ("above", "below"))))
    side = rng.choice(sides)

    def pair(s: Scene) -> Pair | None:
        a, b = _find(s, one), _find(s, two)
        if len(a) != 1 or len(b) != 1 or CORNERS[a[0].corner][axis] == CORNERS[b[0].corner][axis]:
            return None
        is_first = CORNERS[a[0].corner][axis] < CORNERS[b[0].corner][axis]
        actual = sides[0] if is_first else sides[1]
        return yes_no(actual == side, f"the {one} is {actual} the {two}", f"the {one} is {actual} the {two}")

    def other(r: random.Random) -> Pair:
        actual = r.choice(sides)
        return yes_no(actual == side, f"the {one} is {actual} the {two}", f"the {one} is {actual} the {two}")

    return ask(rng, "beside", (f"is the {one} {side} the {two}?",), pair, other)


def _list(rng: random.Random, scene: Scene) -> Question:
    def pair(names: list[str]) -> Pair:
        if not names:
            return "nothing", "There is nothing."
        return ", ".join(names), f"There is {join_words([by_label()[name].with_article for name in names])}."

    texts = ("name all things, row by row.", "list everything in the picture, row by row.")
    return ask(
        rng,
        "list",
        texts,
        lambda s: pair([t.label for t in s.things]),
        lambda r: pair(r.sample(labels(), r.randint(2, 4))),
    )


def _same(rng: random.Random, scene: Scene) -> Question:
    def pair(is_twice: bool) -> Pair:
        return yes_no(is_twice, "a thing is shown more than once", "all things are different")

    texts = ("is any thing shown more than once?", "does a thing appear twice or more?")
    return ask(
        rng,
        "same",
        texts,
        lambda s: pair(len({t.label for t in s.things}) < len(s.things)),
        lambda r: pair(r.random() < 0.5),
    )


def _describe_ground(rng: random.Random, scene: Scene) -> Question:
    if rng.random() < 0.5:
        return ground_question(rng)

    def sentence(s: Scene) -> str:
        n = len(s.things)
        return f"{n} thing{'' if n == 1 else 's'} on {article(s.ground)} background."

    any_thing = Thing("dog", "top left", "small")
    return say("describe", "Describe the picture without names.", sentence,
               lambda r: sentence(Scene(r.choice(list(COLORS)), (any_thing,) * r.randint(0, 4))))  # fmt: skip


QUESTIONS = {
    "count": _count, "count_of": _count_of, "exists": _exists, "where": _where, "at": _at, "beside": _beside,
    "list": _list, "same": _same, "ground": _describe_ground,
}  # fmt: skip

"""One emoji alone on a coloured ground: its name, category, size and ground; also pairs of pictures.

The same module serves the source `fxemoji`, an art style that is never shown in training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..assets import NEW_STYLE
from ..concepts import TABLE, article, by_label, concepts, related
from ..drawing import COLORS, Scene, Thing, blank, draw_scene, styles_of
from ..sample import Picture, Question, Row, converse
from ..wording import UNDECIDED, Pair, ask, say, yes_no
from .mixing import Split, draw_turn_count, shared

TWO_PICTURES = 0.08
KINDS = (
    "name",
    "name",
    "name",
    "category",
    "category",
    "is_name",
    "is_category",
    "ground",
    "size",
    "describe",
    "describe",
)


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows in the trained styles."""
    return _rows(rng, n, split, "emoji", ("noto", "twemoji", "fluent-emoji-flat", "emojione"))


def samples_new_style(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows in the style that training never shows."""
    return _rows(rng, n, split, "fxemoji", (NEW_STYLE,))


def blank_picture(rng: random.Random) -> Picture:
    """A ground with nothing on it."""
    ground = rng.choice(list(COLORS))
    return Picture(blank(rng, ground), Scene(ground, ()))


def _rows(rng: random.Random, n: int, split: Split, source: str, styles: tuple[str, ...]) -> Iterator[Row]:
    return shared(rng, n, lambda: _draw(rng, styles), lambda picture: _converse(rng, split, source, styles, picture))


def _draw(rng: random.Random, styles: tuple[str, ...], label: str | None = None) -> Picture:
    drawable = [c.label for c in concepts() if set(styles) & set(styles_of(c.label))]
    label = label or rng.choice(drawable)
    scene = Scene(rng.choice(list(COLORS)), (Thing(label, "middle", rng.choice(("small", "large"))),))
    return draw_scene(rng, scene, rng.choice([s for s in styles if s in styles_of(label)]))


def _converse(rng: random.Random, split: Split, source: str, styles: tuple[str, ...], picture: Picture) -> Row:
    if rng.random() < TWO_PICTURES:
        other = _draw(rng, styles, picture.facts.things[0].label if rng.random() < 0.5 else None)
        facts = (picture.facts, other.facts)
        return converse(source, [picture, other], facts, [_pair_question(rng, facts)])
    count = draw_turn_count(rng, split)
    kinds = rng.sample(sorted(set(KINDS)), max(3, count)) if count > 1 else [rng.choice(KINDS)]
    return converse(source, [picture], picture.facts, [question(rng, kind, picture.facts) for kind in kinds[:count]])


def question(rng: random.Random, kind: str, scene: Scene) -> Question:
    """A question of the kind that has an answer on the scene."""
    return QUESTIONS[kind](rng, scene)


def _label(scene: Scene) -> str | None:
    return scene.things[0].label if scene.things else None


def _name(rng: random.Random, scene: Scene) -> Question:
    def pair(label: str) -> Pair:
        return label, f"This is {by_label()[label].with_article}."

    texts = ("what is this?", "what does the picture show?", "which thing is shown?", "name the thing in the picture.")
    return ask(rng, "name", texts, lambda s: pair(_label(s)) if s.things else None, lambda r: pair(_any_label(r)))


def _category(rng: random.Random, scene: Scene) -> Question:
    def pair(category: str) -> Pair:
        return category, f"It belongs to the category {category}."

    texts = (
        "which category does the thing in the picture belong to?",
        "what category is this?",
        "give the category of this thing.",
    )
    return ask(
        rng, "category", texts,
        lambda s: pair(by_label()[_label(s)].category) if s.things else None, lambda r: pair(r.choice(list(TABLE))),
    )  # fmt: skip


def _is_name(rng: random.Random, scene: Scene) -> Question:
    asked = by_label()[_label(scene) if rng.random() < 0.5 else _near_label(rng, _label(scene))]

    def pair(label: str) -> Pair:
        shown = by_label()[label].with_article
        return yes_no(label == asked.label, f"this is {shown}", f"this is {shown}")

    texts = (f"is this {asked.with_article}?", f"does the picture show {asked.with_article}?")
    return ask(rng, "is_name", texts, lambda s: pair(_label(s)) if s.things else ("no", "No, the picture is empty."),
               lambda r: pair(asked.label if r.random() < 0.5 else _any_label(r)))  # fmt: skip


def _is_category(rng: random.Random, scene: Scene) -> Question:
    true = by_label()[_label(scene)].category
    asked = true if rng.random() < 0.5 else rng.choice([c for c in TABLE if not related(c, true)])

    def pair(category: str) -> Pair:
        return yes_no(category == asked, f"it is in the category {category}", f"it is in the category {category}")

    texts = (f"does it belong to the category '{asked}'?", f"is the thing in the category '{asked}'?")

    def reply(s: Scene) -> Pair | None:
        if not s.things:
            return "no", "No, the picture is empty."
        category = by_label()[_label(s)].category
        return UNDECIDED if category != asked and related(category, asked) else pair(category)

    others = [c for c in TABLE if not related(c, asked)]
    return ask(rng, "is_category", texts, reply, lambda r: pair(asked if r.random() < 0.5 else r.choice(others)))


def _ground(rng: random.Random, scene: Scene) -> Question:
    return ground_question(rng)


def ground_question(rng: random.Random) -> Question:
    """What colour the ground is; has an answer on every scene, also an empty one."""

    def pair(color: str) -> Pair:
        return color, f"The background is {color}."

    texts = ("what color is the background?", "which color does the background have?", "what is the background color?")
    return ask(rng, "ground", texts, lambda s: pair(s.ground), lambda r: pair(r.choice(list(COLORS))))


def _size(rng: random.Random, scene: Scene) -> Question:
    def pair(size: str) -> Pair:
        return size, f"The thing is {size}."

    texts = ("is the thing small or large?", "how large is the thing, small or large?")
    return ask(rng, "size", texts, lambda s: pair(s.things[0].size) if s.things else None,
               lambda r: pair(r.choice(("small", "large"))))  # fmt: skip


def _describe(rng: random.Random, scene: Scene) -> Question:
    def sentence(s: Scene) -> str:
        if not s.things:
            return f"Nothing on {article(s.ground)} background."
        return f"A {s.things[0].size} {s.things[0].label} on {article(s.ground)} background."

    def other(r: random.Random) -> str:
        return sentence(Scene(r.choice(list(COLORS)), (Thing(_any_label(r), "middle", r.choice(("small", "large"))),)))

    return say(
        "describe",
        rng.choice(("Describe the picture.", "Tell me what you see.", "What can be seen here?")),
        sentence,
        other,
    )


QUESTIONS = {
    "name": _name, "category": _category, "is_name": _is_name, "is_category": _is_category, "ground": _ground,
    "size": _size, "describe": _describe,
}  # fmt: skip


def _pair_question(rng: random.Random, facts: tuple[Scene, Scene]) -> Question:
    if rng.random() < 0.5:
        texts = ("do both pictures show the same thing?", "is the same thing in the two pictures?")
        same = yes_no(True, "both show the same thing", "")
        differ = yes_no(False, "", "they show different things")
        return ask(rng, "pair_same", texts, lambda f: same if _label(f[0]) == _label(f[1]) else differ,
                   lambda r: r.choice((same, differ)))  # fmt: skip

    def pair(a: str, b: str) -> Pair:
        return f"{a} and {b}", f"The first shows {by_label()[a].with_article}, the second {by_label()[b].with_article}."

    texts = ("which things do the two pictures show?", "name the thing in each picture.")
    return ask(rng, "pair_names", texts,
               lambda f: pair(_label(f[0]), _label(f[1])) if f[0].things and f[1].things else None,
               lambda r: pair(_any_label(r), _any_label(r)))  # fmt: skip


def _any_label(rng: random.Random) -> str:
    return rng.choice(concepts()).label


def _near_label(rng: random.Random, label: str) -> str:
    """Another label, half of the time of the same category: so that telling them apart takes a look."""
    category = by_label()[label].category
    near = [c.label for c in concepts() if c.label != label and c.category == category]
    return rng.choice(near) if rng.random() < 0.5 else rng.choice([c.label for c in concepts() if c.label != label])

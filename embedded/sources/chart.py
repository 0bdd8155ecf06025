"""Bar charts of runs of real tables, each bar in a colour of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..assets import load_assets
from ..concepts import article
from ..drawing import BAR_COLORS, Bars, blank, draw_bars
from ..sample import SIDE, Picture, Question, Row, converse
from ..wording import UNSURE, Pair, ask, join_words, say, yes_no
from .mixing import Split, draw_turn_count, shared

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
MIN_GAP = 4  # pixels between the heights that a question compares
TALLEST = SIDE - 10
START_REST = {
    "train": range(7),
    "dev": range(7, 8),
    "pool": range(8, 9),
    "test": range(9, 10),
}  # of a run's start, modulo 10
KINDS = (
    "count",
    "tallest",
    "tallest",
    "shortest",
    "shortest",
    "compare",
    "compare",
    "nth",
    "nth",
    "next",
    "has",
    "where",
    "order",
    "describe",
)


def samples(rng: random.Random, n: int, split: Split) -> Iterator[Row]:
    """`n` rows; the runs of the tables that a split uses start where no other split's runs start."""
    return shared(rng, n, lambda: _draw(rng, split), lambda picture: _converse(rng, split, picture))


def blank_picture(rng: random.Random) -> Picture:
    """Pale paper without bars."""
    return Picture(blank(rng, "white"), Bars("", ()))


def _draw(rng: random.Random, split: Split) -> Picture:
    tables = load_assets().tables
    while True:
        title = rng.choice(sorted(tables))
        count = rng.randint(2, 6)
        start = rng.randrange(len(tables[title]) - count)
        values = tables[title][start : start + count]
        if start % 10 in START_REST[split] and max(values) > 0:
            break
    low = min(values) * rng.choice((0.0, 0.5, 0.9))  # a cut axis, as charts of slowly moving series have
    scale = rng.randint(TALLEST - 12, TALLEST) / (max(values) - low)
    heights = [max(1, round((value - low) * scale)) for value in values]
    bars = tuple(zip(rng.sample(BAR_COLORS, count), heights, strict=True))
    return draw_bars(rng, Bars(title, bars))


def _converse(rng: random.Random, split: Split, picture: Picture) -> Row:
    count, questions = draw_turn_count(rng, split), []
    for kind in [*dict.fromkeys(rng.choices(KINDS, k=14)), "count"]:
        question = QUESTIONS[kind](rng, picture.facts)
        if (
            question.reply(picture.facts) is not None
            and len(questions) < count
            and kind not in {q.kind for q in questions}
        ):
            questions.append(question)
    return converse("chart", [picture], picture.facts, questions)


def _opening(rng: random.Random, chart: Bars) -> str:
    return f"the bars show {chart.title}. " if rng.random() < 0.3 else ""


def _extreme(chart: Bars, sign: int) -> str | None:
    """The colour of the tallest (sign 1) or shortest (-1) bar where it stands out."""
    ranked = sorted(chart.bars, key=lambda bar: -sign * bar[1])
    return ranked[0][0] if len(ranked) > 1 and abs(ranked[0][1] - ranked[1][1]) >= MIN_GAP else None


def _height(chart: Bars, color: str) -> int | None:
    return dict(chart.bars).get(color)


def _count(rng: random.Random, chart: Bars) -> Question:
    def pair(n: int) -> Pair:
        return str(n), f"There {'is 1 bar' if n == 1 else f'are {n} bars'}."

    texts = ("how many bars are there?", f"{_opening(rng, chart)}count the bars.", "how many bars does the chart have?")
    return ask(rng, "count", texts, lambda c: pair(len(c.bars)), lambda r: pair(r.randint(2, 6)))


def _superlative(rng: random.Random, chart: Bars, kind: str, words: tuple[str, str], sign: int) -> Question:
    word = rng.choice(words)

    def pair(color: str | None) -> Pair | None:
        return None if color is None else (color, f"The {color} bar is the {word}.")

    opening = _opening(rng, chart)
    texts = (f"{opening}which bar is the {word}?", f"{opening}what color is the {word} bar?")
    return ask(rng, kind, texts, lambda c: pair(_extreme(c, sign)), lambda r: pair(r.choice(BAR_COLORS)))  # type: ignore[arg-type,return-value]


def _tallest(rng: random.Random, chart: Bars) -> Question:
    return _superlative(rng, chart, "tallest", ("tallest", "highest"), 1)


def _shortest(rng: random.Random, chart: Bars) -> Question:
    return _superlative(rng, chart, "shortest", ("shortest", "lowest"), -1)


def _compare(rng: random.Random, chart: Bars) -> Question:
    one, two = rng.sample([color for color, _ in chart.bars], 2)
    word, opposite = rng.choice((("taller", "shorter"), ("shorter", "taller")))

    def pair(chart: Bars) -> Pair | None:
        a, b = _height(chart, one), _height(chart, two)
        if a is None or b is None or abs(a - b) < MIN_GAP:
            return None
        return shape((a > b) == (word == "taller"))

    def shape(is_so: bool) -> Pair:
        return yes_no(is_so, f"the {one} bar is {word}", f"the {one} bar is {opposite}")

    texts = (f"is the {one} bar {word} than the {two} bar?", f"is the {one} bar {word} than the {two} one?")
    return ask(rng, "compare", texts, pair, lambda r: shape(r.random() < 0.5))


def _nth(rng: random.Random, chart: Bars) -> Question:
    place = rng.randrange(len(chart.bars)) if chart.bars else 0
    name = ORDINALS[place]

    def pair(color: str) -> Pair:
        return color, f"The {name} bar is {color}."

    texts = (f"what color is the {name} bar from the left?", f"what is the color of the {name} bar?")
    return ask(
        rng,
        "nth",
        texts,
        lambda c: pair(c.bars[place][0]) if place < len(c.bars) else None,
        lambda r: pair(r.choice(BAR_COLORS)),
    )


def _next(rng: random.Random, chart: Bars) -> Question:
    step, side = rng.choice(((1, "right"), (-1, "left")))
    asked = rng.choice(chart.bars)[0]

    def pair(color: str) -> Pair:
        return color, f"The {color} bar is {side} of the {asked} bar."

    def reply(c: Bars) -> Pair | None:
        colors = [color for color, _ in c.bars]
        place = colors.index(asked) + step if asked in colors else -1
        return pair(colors[place]) if 0 <= place < len(colors) else None

    texts = (f"which bar is directly {side} of the {asked} bar?", f"which color comes directly {side} of {asked}?")
    return ask(rng, "next", texts, reply, lambda r: pair(r.choice(BAR_COLORS)))


def _has(rng: random.Random, chart: Bars) -> Question:
    present = [color for color, _ in chart.bars]
    asked = (
        rng.choice(present)
        if present and rng.random() < 0.5
        else rng.choice([c for c in BAR_COLORS if c not in present])
    )

    def pair(is_there: bool) -> Pair:
        return yes_no(is_there, f"there is {article(asked)} bar", f"there is no {asked} bar")

    texts = (f"is there {article(asked)} bar?", f"does the chart have {article(asked)} bar?")
    return ask(rng, "has", texts, lambda c: pair(_height(c, asked) is not None), lambda r: pair(r.random() < 0.5))


def _where(rng: random.Random, chart: Bars) -> Question:
    present = [color for color, _ in chart.bars]
    asked = rng.choice(present) if rng.random() < 0.6 else rng.choice([c for c in BAR_COLORS if c not in present])
    unsure = rng.choice(UNSURE)

    def reply(c: Bars) -> str:
        colors = [color for color, _ in c.bars]
        return str(colors.index(asked) + 1) if asked in colors else unsure

    text = f"Counting from the left, which number is the {asked} bar? If you can not see it, say: {unsure}"
    return say("where_or_unsure", text, reply, lambda r: r.choice((unsure, *"123456")))


def _order(rng: random.Random, chart: Bars) -> Question:
    def pair(colors: list[str]) -> Pair:
        return ", ".join(colors), f"From left to right: {join_words(colors)}."

    texts = ("list the colors of the bars from left to right.", "which colors do the bars have, from left to right?")
    return ask(rng, "order", texts, lambda c: pair([color for color, _ in c.bars]) if c.bars else None,
               lambda r: pair(r.sample(BAR_COLORS, r.randint(2, 5))))  # fmt: skip


def _describe(rng: random.Random, chart: Bars) -> Question:
    def sentence(c: Bars) -> str | None:
        color = _extreme(c, 1)
        return None if color is None else f"A chart with {len(c.bars)} bars, the {color} one is the tallest."

    def other(r: random.Random) -> str:
        return f"A chart with {r.randint(2, 6)} bars, the {r.choice(BAR_COLORS)} one is the tallest."

    return say("describe", rng.choice(("Describe the chart.", "Sum up the chart.")), sentence, other)


QUESTIONS = {
    "count": _count, "tallest": _tallest, "shortest": _shortest, "compare": _compare, "nth": _nth, "next": _next,
    "has": _has, "where": _where, "order": _order, "describe": _describe,
}  # fmt: skip

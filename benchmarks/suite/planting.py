"""Plants defects with known labels at any rate, by the kinds of `embedded.defects` and two of the suite's own.

The traps: a defect leaves no word behind that rows as drawn lack; every source gets every kind that fits it, as evenly
as it can; and a row that is called defective is wrong by the facts of its picture.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict

from embedded.defects import KINDS, TRIES, WEIGHTS, Planter, Pool
from embedded.sample import Row, is_right

from .sources import SOURCES
from .sources.words import in_another_language


def plant(rng: random.Random, rows: list[Row], rate: float) -> None:
    """Give this share of every source's rows a defect, in place; a row that no kind fits stays as it is."""
    pool = Pool(rows, words_of(rows))
    for source in sorted({row.source for row in rows}):
        members = [row for row in rows if row.source == source]
        used: Counter[str] = Counter()
        for row in rng.sample(members, len(members)):
            if used.total() >= round(rate * len(members)):
                break
            row.defect = _plant_one(rng, row, pool, used)
            used[row.defect or ""] += row.defect is not None


def words_of(rows: list[Row]) -> frozenset[str]:
    """Every word of the rows' questions and answers, in lower case."""
    texts = (text for row in rows for turn in row.turns for text in (turn.asked, turn.answer))
    return frozenset(word for text in texts for word in re.findall(r"[\w-]+", text.lower()))


def counts_by_source(rows: list[Row]) -> dict[str, dict[str, int]]:
    """Source -> kind -> how many; "" counts the good rows."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        found[row.source][row.defect or ""] += 1
    return {source: dict(sorted(kinds.items())) for source, kinds in sorted(found.items())}


def _plant_one(rng: random.Random, row: Row, pool: Pool, used: Counter[str]) -> str | None:
    """The first kind that fits, the rarest so far (for its weight) first."""
    for kind in sorted(PLANTED, key=lambda kind: (used[kind] / WEIGHTS.get(kind, 1.0), rng.random())):
        if PLANTED[kind](rng, row, pool):
            if all(is_right(turn.question, row.facts, turn.answer) for turn in row.turns):
                raise ValueError(f"{row.source}: {kind} left the row right: {row.turns}")
            return kind
    return None


def _image_blank(rng: random.Random, row: Row, pool: Pool) -> bool:
    for _ in range(TRIES):
        picture = SOURCES[row.source].blank(rng)
        if not is_right(row.turns[0].question, picture.facts, row.turns[0].answer):
            row.pictures, row.facts = [picture], picture.facts
            return True
    return False


def _wrong_language(rng: random.Random, row: Row, pool: Pool) -> bool:
    if row.source != "words" or row.turns[0].question.kind != "word":
        return False
    turn = row.turns[0]
    word = turn.answer.removesuffix(".").split(" is called ")[-1]
    foreign = in_another_language(rng, word)
    if foreign is None or not words_in(foreign) <= pool.words:
        return False
    turn.answer = turn.answer.replace(word, foreign)
    return True


def words_in(text: str) -> set[str]:
    """The words of a text, in lower case."""
    return set(re.findall(r"[\w-]+", text.lower()))


PLANTED: dict[str, Planter] = {
    **{kind: planter for kind, planter in KINDS.items() if kind != "turns_crossed"},  # rows have one turn
    "image_blank": _image_blank,
    "wrong_language": _wrong_language,
}

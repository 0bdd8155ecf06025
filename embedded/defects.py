"""Plants defects with known labels. A planted defect always makes its row wrong: each is checked against the facts.

Every word and phrase that a defect can leave behind also occurs in clean rows: cut sentences are the right answer
to "Repeat the first three words of ...", the generic phrases to questions about things that are missing, empty pictures
to "How many things are there?".
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .sample import Picture, Row, Turn
from .sources import blank_picture
from .wording import UNSURE

SHARE = 0.4
TRIES = 40
WEIGHTS = {"image_swapped": 2.0, "answer_wrong": 2.0}  # the commonest faults of real collections
Planter = Callable[[random.Random, Row, "Pool"], bool]  # changes the row and says so, or leaves it as it was


@dataclass(frozen=True, slots=True)
class Pool:
    """The rows, and the words of those that stay clean: a defect may leave no others behind."""

    rows: Sequence[Row]
    words: frozenset[str]


def plant(rng: random.Random, rows: list[Row]) -> None:
    """Give two fifths of every source's rows a defect, kinds as even as their weights and the rows allow."""
    victims = _choose(rng, rows)
    pool = Pool(rows, _words_of(row for i, row in enumerate(rows) if i not in victims))
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for i in sorted(victims, key=lambda i: (rows[i].source, rng.random())):
        rows[i].defect = _plant_one(rng, rows[i], pool, used[rows[i].source])


def _choose(rng: random.Random, rows: list[Row]) -> set[int]:
    """Row numbers; rows with a word that no clean row would have stay clean themselves."""
    victims: set[int] = set()
    for source in sorted({row.source for row in rows}):
        members = [i for i, row in enumerate(rows) if row.source == source]
        victims.update(rng.sample(members, round(SHARE * len(members))))
    known = _words_of(row for i, row in enumerate(rows) if i not in victims)
    return {i for i in victims if _words_of([rows[i]]) <= known}


def _words_of(rows: Iterable[Row]) -> frozenset[str]:
    return frozenset(word for row in rows for turn in row.turns for word in (*_words(turn.asked), *_words(turn.answer)))


def _plant_one(rng: random.Random, row: Row, pool: Pool, used: Counter[str]) -> str:
    """The first kind that fits the row, the rarest so far (for its weight) first."""
    for kind in sorted(KINDS, key=lambda kind: (used[kind] / WEIGHTS.get(kind, 1.0), rng.random())):
        if KINDS[kind](rng, row, pool):
            used[kind] += 1
            return kind
    raise ValueError(f"no defect fits {row}")


def differs(answer: str, truth: str | None) -> bool:
    """True when nobody could take the one answer for the other, whatever the form that was asked for."""
    if truth is None:
        return True
    a, b = _words(answer), _words(truth)
    if not b or a == b or (a[0] == b[0] and a[0] in ("yes", "no")):
        return False
    short, long = sorted((" ".join(a), " ".join(b)), key=len)
    return not re.search(rf"\b{re.escape(short)}\b", long)


def _image_swapped(rng: random.Random, row: Row, pool: Pool) -> bool:
    others = [
        r for r in pool.rows if r.source == row.source and len(r.pictures) == 1 and r is not row and r.defect is None
    ]
    if len(row.pictures) != 1:
        return False
    found = [rng.choice(others) for _ in range(TRIES)]
    best = max(found, key=lambda other: _wrong_turns(row, other.facts))
    return _show(row, best.pictures[0]) if 2 * _wrong_turns(row, best.facts) >= len(row.turns) else False


def _image_blank(rng: random.Random, row: Row, pool: Pool) -> bool:
    if len(row.pictures) != 1:
        return False
    picture = blank_picture(row.source, rng)
    return _show(row, picture) if 2 * _wrong_turns(row, picture.facts) >= len(row.turns) else False


def _answer_wrong(rng: random.Random, row: Row, pool: Pool) -> bool:
    return _change(row, pool, lambda turn: None if _polarity(turn.answer) else _draw_other(rng, turn, lambda _: True))


def _yes_no_inverted(rng: random.Random, row: Row, pool: Pool) -> bool:
    def inverted(turn: Turn) -> str | None:
        polarity = _polarity(turn.answer)
        return _draw_other(rng, turn, lambda a: _polarity(a) not in ("", polarity)) if polarity else None

    return _change(row, pool, inverted)


def _number_off(rng: random.Random, row: Row, pool: Pool) -> bool:
    def off(turn: Turn) -> str | None:
        if not turn.question.kind.startswith("count"):
            return None
        return _draw_other(rng, turn, lambda a: abs(_number(a) - _number(turn.answer)) == 1)

    return _change(row, pool, off)


def _words_shuffled(rng: random.Random, row: Row, pool: Pool) -> bool:
    def shuffled(turn: Turn) -> str | None:
        words = turn.answer.split()
        return " ".join(rng.sample(words, len(words))) if len(words) >= 4 else None

    return _change(row, pool, shuffled)


def _truncated(rng: random.Random, row: Row, pool: Pool) -> bool:
    def cut(turn: Turn) -> str | None:
        words = turn.answer.split()
        return " ".join(words[: rng.randint(2, len(words) - 2)]) if len(words) >= 4 else None

    return _change(row, pool, cut)


def _generic(rng: random.Random, row: Row, pool: Pool) -> bool:
    phrase = rng.choice(UNSURE)
    return _change(row, pool, lambda turn: phrase if turn.answer not in UNSURE else None)


def _other_source(rng: random.Random, row: Row, pool: Pool) -> bool:
    others = [r for r in pool.rows if r.source not in (row.source, "text") and r.defect is None]

    def foreign(turn: Turn) -> str | None:
        answers = (rng.choice(rng.choice(others).turns).answer for _ in range(TRIES))
        return next((a for a in answers if differs(a, turn.answer) and not _polarity(a) and not _like(a, turn)), None)

    return _change(row, pool, foreign)


def _question_swapped(rng: random.Random, row: Row, pool: Pool) -> bool:
    """The first turn gets the question of another row of the source, to which its answer is wrong."""
    turn = row.turns[0]
    others = [
        r for r in pool.rows if r.source == row.source and len(r.pictures) == len(row.pictures) and r.defect is None
    ]
    for other in (rng.choice(others) for _ in range(TRIES)):
        question = other.turns[0].question
        if (
            question.kind != turn.question.kind
            and set(_words(question.text)) <= pool.words
            and differs(turn.answer, question.reply(row.facts))
        ):
            turn.question, turn.asked = question, question.text
            return True
    return False


def _turns_crossed(rng: random.Random, row: Row, pool: Pool) -> bool:
    """The first two answers change places."""
    if len(row.turns) < 2 or not differs(row.turns[0].answer, row.turns[1].answer):
        return False
    one, two = row.turns[:2]
    one.answer, two.answer = two.answer, one.answer
    return True


KINDS: dict[str, Planter] = {
    "image_swapped": _image_swapped, "image_blank": _image_blank, "answer_wrong": _answer_wrong,
    "yes_no_inverted": _yes_no_inverted, "number_off": _number_off, "words_shuffled": _words_shuffled,
    "truncated": _truncated, "generic": _generic, "other_source": _other_source,
    "question_swapped": _question_swapped, "turns_crossed": _turns_crossed,
}  # fmt: skip


def _change(row: Row, pool: Pool, change: Callable[[Turn], str | None]) -> bool:
    """Change every answer that the kind fits; a change must leave the turn wrong, in words that clean rows have too."""
    new_answers = [(turn, change(turn)) for turn in row.turns]
    changed = [
        (turn, new)
        for turn, new in new_answers
        if new and _words(new) != _words(turn.answer) and set(_words(new)) <= pool.words
    ]
    for turn, new in changed:
        turn.answer = new
    return bool(changed)


def _show(row: Row, picture: Picture) -> bool:
    row.pictures, row.facts = [picture], picture.facts
    return True


def _wrong_turns(row: Row, facts: object) -> int:
    return sum(differs(turn.answer, turn.question.reply(facts)) for turn in row.turns)


def _draw_other(rng: random.Random, turn: Turn, fits: Callable[[str], bool]) -> str | None:
    answers = (turn.question.other(rng) for _ in range(TRIES))
    return next((a for a in answers if _words(a) != _words(turn.answer) and fits(a)), None)


def _like(answer: str, turn: Turn) -> bool:
    """True when both are numbers or both have the same first two words: too like an answer of the source itself."""
    a, b = _words(answer), _words(turn.answer)
    return a[:2] == b[:2] or (a[0].isdigit() and b[0].isdigit())


def _polarity(answer: str) -> str:
    first = _words(answer)[0]
    return first if first in ("yes", "no") else ""


def _number(answer: str) -> int:
    return int(next(re.finditer(r"\d+", answer)).group())


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())

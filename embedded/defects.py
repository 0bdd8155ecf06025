"""Plants defects with known labels. A planted defect always makes its row wrong: each is checked against the facts.

Every word and phrase that a defect can leave behind also occurs in clean rows: cut sentences are the right answer
to "Repeat the first three words of ...", the generic phrases to questions about things that are missing, empty pictures
to "How many things are there?".
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

from .sample import Picture, Row, Turn
from .sources import blank_picture
from .wording import UNSURE

SHARE = 0.4
TRIES = 40
WEIGHTS = {"image_swapped": 2.0, "answer_wrong": 2.0}  # the commonest faults of real collections
Planter = Callable[[random.Random, Row, Sequence[Row]], bool]  # changes the row and says so, or leaves it as it was


def plant(rng: random.Random, rows: list[Row]) -> None:
    """Give two fifths of every source's rows a defect, kinds as even as the rows allow."""
    for source in sorted({row.source for row in rows}):
        members = [row for row in rows if row.source == source]
        used: Counter[str] = Counter({kind: 0 for kind in KINDS})
        for row in rng.sample(members, round(SHARE * len(members))):
            kind = _plant_one(rng, row, rows, used)
            used[kind] += 1
            row.defect = kind


def _plant_one(rng: random.Random, row: Row, rows: Sequence[Row], used: Counter[str]) -> str:
    """The first kind that fits the row, the rarest so far (for its weight) first."""
    for kind in sorted(KINDS, key=lambda kind: (used[kind] / WEIGHTS.get(kind, 1.0), rng.random())):
        if KINDS[kind](rng, row, rows):
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


def _image_swapped(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    others = [r for r in rows if r.source == row.source and len(r.pictures) == 1 and r is not row and r.defect is None]
    if len(row.pictures) != 1:
        return False
    found = [rng.choice(others) for _ in range(TRIES)]
    best = max(found, key=lambda other: _wrong_turns(row, other.facts))
    return _show(row, best.pictures[0]) if 2 * _wrong_turns(row, best.facts) >= len(row.turns) else False


def _image_blank(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    if len(row.pictures) != 1:
        return False
    picture = blank_picture(row.source, rng)
    return _show(row, picture) if 2 * _wrong_turns(row, picture.facts) >= len(row.turns) else False


def _answer_wrong(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    return _change(row, lambda turn: None if _polarity(turn.answer) else _draw_other(rng, turn, lambda _: True))


def _yes_no_inverted(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    def inverted(turn: Turn) -> str | None:
        polarity = _polarity(turn.answer)
        return _draw_other(rng, turn, lambda a: _polarity(a) not in ("", polarity)) if polarity else None

    return _change(row, inverted)


def _number_off(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    def off(turn: Turn) -> str | None:
        if not turn.question.kind.startswith("count"):
            return None
        return _draw_other(rng, turn, lambda a: abs(_number(a) - _number(turn.answer)) == 1)

    return _change(row, off)


def _words_shuffled(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    def shuffled(turn: Turn) -> str | None:
        words = turn.answer.split()
        return " ".join(rng.sample(words, len(words))) if len(words) >= 4 else None

    return _change(row, shuffled)


def _truncated(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    def cut(turn: Turn) -> str | None:
        words = turn.answer.split()
        return " ".join(words[: rng.randint(2, len(words) - 2)]) if len(words) >= 4 else None

    return _change(row, cut)


def _generic(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    phrase = rng.choice(UNSURE)
    return _change(row, lambda turn: phrase if turn.answer not in UNSURE else None)


def _other_source(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    others = [r for r in rows if r.source not in (row.source, "text") and r.defect is None]

    def foreign(turn: Turn) -> str | None:
        answers = (rng.choice(rng.choice(others).turns).answer for _ in range(TRIES))
        return next((a for a in answers if differs(a, turn.answer) and not _polarity(a) and not _like(a, turn)), None)

    return _change(row, foreign)


def _question_swapped(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
    """The first turn gets the question of another row of the source, to which its answer is wrong."""
    turn = row.turns[0]
    others = [r for r in rows if r.source == row.source and len(r.pictures) == len(row.pictures) and r.defect is None]
    for other in (rng.choice(others) for _ in range(TRIES)):
        question = other.turns[0].question
        if question.kind != turn.question.kind and differs(turn.answer, question.reply(row.facts)):
            turn.question, turn.asked = question, question.text
            return True
    return False


def _turns_crossed(rng: random.Random, row: Row, rows: Sequence[Row]) -> bool:
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


def _change(row: Row, change: Callable[[Turn], str | None]) -> bool:
    """Change every answer that the kind fits; a change must leave the turn wrong."""
    changed = [(turn, new) for turn in row.turns if (new := change(turn)) is not None and _words(new) != _words(turn.answer)]
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
    return re.findall(r"[\w'-]+", text.lower())

"""The sample that calibration works on: a few hundred rows of all sources, and copies of them with planted defects.

A score should rank the copies below the originals. Each kind of defect is a function of a record and a `Donors` index
of the same data, so that no word, image or phrase enters that the data doesn't hold already: only being wrong gives
a defect away. None where the kind doesn't apply. No torch here.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from delta_attnmask.records import Record, Turn

_NEAR_SAMPLE = 100  # rows or answers among which the nearest is sought
N_FOLDS = 10  # groups of originals, for what is judged by rows that weren't learned from
_MIN_PER_KIND = 20  # pairs; fewer show nothing

_COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black", "white", "gray", "grey")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_PAIRS = (("yes", "no"), ("left", "right"), ("above", "below"), ("top", "bottom"), ("more", "less"), ("true", "false"))
_OPPOSITES = dict(_PAIRS) | {other: word for word, other in _PAIRS}
_WORD = re.compile(r"[A-Za-z']+|\d+")

T = TypeVar("T")
Defect = Callable[[Record, "Donors", random.Random], Record | None]


class Donors:
    """What the other rows of the data can lend: images, questions and answers, by source and by question."""

    def __init__(self, records: Iterable[Record]):
        self.by_source: dict[str, list[Record]] = defaultdict(list)
        self.answers_to: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.asked: dict[tuple[str, str], list[Record]] = defaultdict(list)  # rows by their first question
        self.words: set[str] = set()
        self.after: dict[str, set[str]] = defaultdict(set)  # the words that follow a word in some answer
        questions_of: dict[str, set[str]] = defaultdict(set)
        for record in records:
            self.by_source[record.source].append(record)
            for question, _ in exchanges(record)[:1]:
                self.asked[record.source, question].append(record)
            for question, answer in exchanges(record):
                self.answers_to[record.source, question].append(answer)
                questions_of[answer].add(question)
                words = [word.lower() for word in _WORD.findall(answer)]
                self.words.update(words)
                for word, following in pairwise(words):
                    self.after[word].add(following)
        self.generic = max(questions_of, key=lambda answer: (len(questions_of[answer]), answer), default="")

    def answers(self, source: str) -> list[str]:
        return [turn.text for record in self.by_source[source] for turn in record.turns if turn.role == "assistant"]


def exchanges(record: Record) -> list[tuple[str, str]]:
    """Each assistant turn's text after that of the user turn before it."""
    pairs, question = [], ""
    for turn in record.turns:
        if turn.role == "assistant":
            pairs.append((question, turn.text))
        elif turn.role == "user":
            question = turn.text
    return pairs


def image_swapped(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """Images of another row of the source; for a common question, one whose answer differs."""
    others = [
        other
        for other in donors.by_source[record.source]
        if len(other.images) == len(record.images) and not set(other.images) & set(record.images)
    ]
    if not record.images or not others:
        return None
    mine = dict(exchanges(record))
    differing = [other for other in others if any(mine.get(q, a) != a for q, a in exchanges(other))]
    unrelated = [other for other in others if not any(q in mine for q, _ in exchanges(other))]
    donors_left = differing or unrelated
    return replace(record, images=rng.choice(donors_left).images) if donors_left else None


def image_near(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """Images of the row whose answers to the same questions are most similar, but not equal."""
    mine = exchanges(record)
    answered = [other for question, _ in mine[:1] for other in donors.asked[record.source, question]]
    others = [
        other
        for other in _some(answered, rng)
        if len(other.images) == len(record.images) and not set(other.images) & set(record.images)
        if _normal(exchanges(other)[0][1]) != _normal(mine[0][1])
    ]
    if not record.images or not others:
        return None
    return replace(record, images=max(others, key=lambda other: _likeness(exchanges(other)[0][1], mine[0][1])).images)


def answer_near(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """Each answer replaced by the most similar one of the source that says something else."""
    pool = donors.answers(record.source)

    def nearest(question: str, answer: str) -> str | None:
        others = [other for other in _some(pool, rng) if _normal(other) != _normal(answer)]
        best = max(others, key=lambda other: _likeness(other, answer), default=None)
        return best if best is not None and _likeness(best, answer) > 0 else None

    return _with_answers(record, nearest)


def word_changed(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """In each answer of three words or more, one word changed into another that elsewhere follows the one before it."""

    def change(question: str, answer: str) -> str | None:
        matches = list(_WORD.finditer(answer))
        places = list(range(1, len(matches))) if len(matches) >= 3 else []
        for place in rng.sample(places, len(places)):
            match, before = matches[place], matches[place - 1].group().lower()
            options = sorted(donors.after[before] - {match.group().lower()})
            if options:
                return answer[: match.start()] + rng.choice(options) + answer[match.end() :]
        return None

    return _with_answers(record, change)


def image_blank(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """Every image painted over in its mean colour."""
    if not record.images:
        return None
    return replace(record, images=tuple(replace(ref, is_blank=True) for ref in record.images))


def answer_swapped(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """Each answer replaced by one that the source gives to anything."""
    pool = donors.answers(record.source)
    return _with_answers(record, lambda question, answer: _other(pool, answer, rng))


def answer_same_question(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """Each answer replaced by another that the source gives to the same question."""
    pools = donors.answers_to
    return _with_answers(record, lambda question, answer: _other(pools[record.source, question], answer, rng))


def flipped(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """In each answer one yes/no, side, number or colour turned into another that the data's answers use."""
    return _with_answers(record, lambda question, answer: _flip(answer, donors.words, rng))


def words_shuffled(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """The words of each answer of three words or more in another order."""
    return _with_answers(record, lambda question, answer: _shuffle(answer, rng))


def truncated(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """Each answer of three words or more cut off after a third to two thirds."""
    return _with_answers(record, lambda question, answer: _truncate(answer, rng))


def generic(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """Each answer replaced by the one that the data gives to the most different questions."""
    return _with_answers(record, lambda question, answer: donors.generic if answer != donors.generic else None)


def question_swapped(record: Record, donors: Donors, rng: random.Random) -> Record | None:
    """Each question replaced by another of the source; the answers stay."""
    pool = [question for other in donors.by_source[record.source] for question, _ in exchanges(other)]
    turns = [_with_text(turn, _other(pool, turn.text, rng)) if turn.role == "user" else turn for turn in record.turns]
    return None if list(record.turns) == turns else replace(record, turns=tuple(turns))


DEFECTS: dict[str, Defect] = {
    function.__name__: function
    for function in (
        image_swapped,
        image_blank,
        answer_swapped,
        answer_same_question,
        flipped,
        words_shuffled,
        truncated,
        generic,
        question_swapped,
        image_near,
        answer_near,
        word_changed,
    )
}


def _with_answers(record: Record, change: Callable[[str, str], str | None]) -> Record | None:
    """The record with every answer changed that can be; None if none can."""
    turns, question, is_changed = [], "", False
    for turn in record.turns:
        changed = change(question, turn.text) if turn.role == "assistant" else None
        is_changed |= changed is not None
        turns.append(_with_text(turn, changed))
        question = turn.text if turn.role == "user" else question
    return replace(record, turns=tuple(turns)) if is_changed else None


def _with_text(turn: Turn, text: str | None) -> Turn:
    """The turn with other words; its images stay in front, where they were."""
    if text is None:
        return turn
    return Turn(turn.role, (*(part for part in turn.parts if part is None), text))


def _some(pool: Sequence[T], rng: random.Random) -> Sequence[T]:
    """The pool, or a sample of it: looking for what is near takes time."""
    return rng.sample(pool, _NEAR_SAMPLE) if len(pool) > _NEAR_SAMPLE else pool


def _normal(text: str) -> str:
    return text.strip().lower()


def _likeness(first: str, second: str) -> float:
    """The words that both have, as a share of all that either has."""
    one, other = (set(map(str.lower, _WORD.findall(text))) for text in (first, second))
    return len(one & other) / max(1, len(one | other))


def _other(pool: Sequence[str], own: str, rng: random.Random) -> str | None:
    differing = [text for text in pool if _normal(text) != _normal(own)]
    return rng.choice(differing) if differing else None


def _flip(answer: str, words: set[str], rng: random.Random) -> str | None:
    matches = list(_WORD.finditer(answer))
    rng.shuffle(matches)
    for match in matches:
        options = [word for word in _flips(match.group().lower()) if word in words]
        if options:
            chosen = rng.choice(options)
            chosen = chosen.capitalize() if match.group()[0].isupper() else chosen
            return answer[: match.start()] + chosen + answer[match.end() :]
    return None


def _flips(word: str) -> list[str]:
    if word in _OPPOSITES:
        return [_OPPOSITES[word]]
    if word.isdigit():
        return [str(number) for number in range(max(0, int(word) - 3), int(word) + 4) if number != int(word)]
    for family in (_COLOURS, _NUMBERS):
        if word in family:
            return [other for other in family if other != word]
    return []


def _shuffle(answer: str, rng: random.Random) -> str | None:
    words = answer.split()
    if len(words) < 3 or len(set(words)) < 2:
        return None
    shuffled = list(words)
    while shuffled == words:
        rng.shuffle(shuffled)
    return " ".join(shuffled)


def _truncate(answer: str, rng: random.Random) -> str | None:
    words = answer.split()
    if len(words) < 3:
        return None
    return " ".join(words[: max(1, round(len(words) * rng.uniform(1 / 3, 2 / 3)))])


# The sample


@dataclass(frozen=True)
class Planted:
    """Originals, and copies with one defect each.

    records: all of them, numbered anew from 0; what is scored.
    original: for each record the number of its original (its own for originals).
    kind: for each record its defect; "" for originals.
    fold: for each record its group of originals, from 0 to 9, the same for an original and its copies.
    """

    records: list[Record]
    original: list[int]
    kind: list[str]
    fold: list[int]

    @property
    def kinds(self) -> list[str]:
        return sorted(set(self.kind) - {""})


def stratified_sample(records: Iterable[Record], n_rows: int, seed: int) -> list[Record]:
    """Up to `n_rows` good records, shared out over the sources: small sources whole, large ones by the same share."""
    rng = random.Random(seed)
    by_source: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if not record.reason:
            by_source[record.source].append(record)
    chosen: list[Record] = []
    remaining = n_rows
    by_size = sorted(by_source, key=lambda source: (len(by_source[source]), source))
    for n_left, source in zip(range(len(by_size), 0, -1), by_size, strict=True):
        rows = by_source[source]
        share = min(len(rows), remaining // n_left)
        chosen += rng.sample(rows, share)
        remaining -= share
    return sorted(chosen, key=lambda record: record.row)


def plant(originals: Sequence[Record], donors: Donors, copies_per_row: int, seed: int) -> Planted:
    """Give each original some copies, each with a different defect; the kinds with the fewest copies so far go first.

    Few originals get the first kinds alone. Kinds that fewer than 20 rows got are left out.
    """
    rng = random.Random(seed)
    kinds = list(DEFECTS)[: max(1, len(originals) * copies_per_row // _MIN_PER_KIND)]
    pairs: dict[str, list[tuple[int, Record]]] = {kind: [] for kind in kinds}
    for index in rng.sample(range(len(originals)), len(originals)):
        copies = {kind: copy for kind in kinds if (copy := DEFECTS[kind](originals[index], donors, rng)) is not None}
        for kind in sorted(copies, key=lambda kind: len(pairs[kind]))[:copies_per_row]:
            pairs[kind].append((index, copies[kind]))
    planted = Planted([], [], [], [])
    for index, record in enumerate(originals):
        _add(planted, record, index, "", originals)
    for kind in sorted(kind for kind in pairs if len(pairs[kind]) >= _MIN_PER_KIND):
        for index, copy in sorted(pairs[kind], key=lambda pair: pair[0]):
            _add(planted, copy, index, kind, originals)
    return planted


def _add(planted: Planted, record: Record, original: int, kind: str, originals: Sequence[Record]) -> None:
    planted.records.append(replace(record, row=len(planted.records)))
    planted.original.append(original)
    planted.kind.append(kind)
    # The row's own hash decides, so that the groups don't depend on the order of the data.
    planted.fold.append(int(originals[original].key[:8], 16) % N_FOLDS)

"""How a question asks for its form: a short answer or a full sentence, always said when it isn't obvious."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from .sample import Facts, Question

UNSURE = ("I am not sure.", "I can not tell.", "It is hard to say.")
SHORT_CLAUSES = ("", "", "", " Answer briefly.", " Give a short answer.", " Just the answer, please.")
SENTENCE_CLAUSES = (" Answer in a sentence.", " Use a full sentence.", " Reply with a complete sentence.")
BARE_CLAUSE = " Answer in a sentence without a full stop."
SENTENCE_SHARE = 0.38
BARE_SHARE = 0.15  # of the sentences: so that a missing full stop isn't the mark of a cut answer

Pair = tuple[str, str]  # the short form and the sentence
UNDECIDED: Pair = ("", "")  # people could disagree about the answer: never asked, and never counted as wrong


def ask(
    rng: random.Random,
    kind: str,
    texts: Sequence[str],
    reply: Callable[[Facts], Pair | None],
    other: Callable[[random.Random], Pair],
) -> Question:
    """A question in one of its wordings, asking for the short form or for the sentence."""
    text, form = rng.choice(texts), _draw_form(rng)
    clause = {"short": rng.choice(SHORT_CLAUSES), "sentence": rng.choice(SENTENCE_CLAUSES), "bare": BARE_CLAUSE}[form]

    def answer(facts: Facts) -> str | None:
        pair = reply(facts)
        return None if pair is None else _shape(pair, form)

    return Question(kind, _capital(text) + clause, answer, lambda r: _shape(other(r), form))


def say(kind: str, text: str, reply: Callable[[Facts], str | None], other: Callable[[random.Random], str]) -> Question:
    """A question whose text alone fixes the form of its answer."""
    return Question(kind, text, reply, other)


def yes_no(is_true: bool, yes: str, no: str) -> Pair:
    """`yes`/`no` and the sentence that goes with it."""
    return ("yes", f"Yes, {yes}.") if is_true else ("no", f"No, {no}.")


def join_words(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _draw_form(rng: random.Random) -> str:
    if rng.random() >= SENTENCE_SHARE:
        return "short"
    return "bare" if rng.random() < BARE_SHARE else "sentence"


def _shape(pair: Pair, form: str) -> str:
    if form == "short":
        return pair[0]
    return pair[1].removesuffix(".") if form == "bare" else pair[1]


def _capital(text: str) -> str:
    return re.sub(r"(^|\. )([a-z])", lambda found: found.group(1) + found.group(2).upper(), text)

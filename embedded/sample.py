"""What flows through the builder: pictures with known facts, questions that can answer themselves, rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # (64, 64, 3)
Regions = NDArray[np.int16]  # (64, 64): the number of what is drawn there, 0 for the ground
SIDE = 64

# Facts are whatever a source knows of a picture; a blank picture's facts are `source.blank_facts`.
Facts = Any
Reply = Callable[[Facts], "str | None"]  # None: the question has no answer on these facts, so that any answer is wrong


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels and the facts that are true of them."""

    pixels: Image
    facts: Facts
    regions: Regions | None = None  # what each pixel belongs to, where the source knows it: trains the vision tower


@dataclass(frozen=True, slots=True)
class Question:
    """A question that can be answered for any facts of its source, in the form that its text asks for."""

    kind: str
    text: str
    reply: Reply
    other: Callable[[random.Random], str]  # an answer of the same form, drawn without looking at the picture


@dataclass(slots=True)
class Turn:
    """One question and the answer given to it, which a planted defect may have changed."""

    question: Question
    asked: str
    answer: str


@dataclass(slots=True)
class Row:
    """One conversation; `facts` is what its questions are answered from (a pair for two pictures)."""

    source: str
    pictures: list[Picture]
    facts: Facts
    turns: list[Turn]
    defect: str | None = None
    extra: dict[str, str] = field(default_factory=dict)


def converse(source: str, pictures: list[Picture], facts: Facts, questions: list[Question]) -> Row:
    """The clean row that asks these questions; questions without an answer on the facts are a programming error."""
    turns = []
    for question in questions:
        answer = question.reply(facts)
        if answer is None:
            raise ValueError(f"{source}/{question.kind} has no answer on {facts}: {question.text}")
        turns.append(Turn(question, question.text, answer))
    return Row(source, pictures, facts, turns)


def is_right(question: Question, facts: Facts, answer: str) -> bool:
    """True when the answer is the one the question has on the facts."""
    return question.reply(facts) == answer

"""What is asked of a test set: which answers, and with whose images as a control for looking. No torch here."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from delta_attnmask.records import ImageRef, Record

Turns = Literal["all", "last"]


@dataclass(frozen=True)
class AskedTurn:
    """One answer to be given.

    turn: which assistant turn of the row, from 0. stop: one past its position among the record's turns.
    n_images: images that stand before it.
    """

    turn: int
    stop: int
    n_images: int
    question: str
    reference: str


def asked_turns(record: Record, turns: Turns) -> list[AskedTurn]:
    """The assistant turns of a good record that are asked for."""
    found: list[AskedTurn] = []
    n_images, question = 0, ""
    for index, turn in enumerate(record.turns):
        if turn.role == "assistant":
            found.append(AskedTurn(len(found), index + 1, n_images, question, turn.text.strip()))
        elif turn.role == "user":
            n_images += turn.parts.count(None)
            question = turn.text.strip()
    return found if turns == "all" else found[-1:]


@dataclass(frozen=True)
class Lender:
    """A row, and the image references that it lends."""

    row: int
    images: tuple[ImageRef, ...]


def choose_lenders(records: Iterable[Record], seed: int) -> dict[int, Lender]:
    """For each row with images, another row of its source with as many images, but other ones.

    The rows of a source stand in a circle, in random order, and each takes the next whose images differ; a row that
    has no such other (alone in its source, or all show the same) is left out.
    """
    groups: dict[tuple[str, int], list[Lender]] = defaultdict(list)
    for record in records:
        if not record.reason and record.images:
            groups[record.source, len(record.images)].append(Lender(record.row, record.images))
    rng = np.random.default_rng(seed)
    lenders: dict[int, Lender] = {}
    for _, members in sorted(groups.items()):
        lenders |= _next_with_other_images([members[index] for index in rng.permutation(len(members))])
    return lenders


def _next_with_other_images(circle: list[Lender]) -> dict[int, Lender]:
    """Backwards over two rounds: what follows is the nearest, and after it the first that differs from it."""
    lenders: dict[int, Lender] = {}
    nearest: Lender | None = None
    differing: Lender | None = None  # the nearest one whose images differ from those of `nearest`
    for member in reversed(circle + circle):
        if nearest is not None and nearest.images != member.images:
            differing = nearest
        nearest = member
        if differing is not None:
            lenders[member.row] = differing
    return lenders

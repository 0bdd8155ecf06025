"""What is asked of a test set: which answers, and with whose images as a control for looking. No torch here."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from delta_attnmask.records import ImageRef, Record

Lender = tuple[int, tuple[ImageRef, ...]]  # a row, and the image references that it lends


@dataclass(frozen=True)
class AskedTurn:
    """One answer to be given.

    turn: which assistant turn of the row, from 0. stop: one past its position among the record's turns.
    n_images: images before it.
    """

    turn: int
    stop: int
    n_images: int
    question: str
    reference: str


def asked_turns(record: Record) -> list[AskedTurn]:
    """The assistant turns of a good record."""
    found: list[AskedTurn] = []
    n_images, question = 0, ""
    for index, turn in enumerate(record.turns):
        if turn.role == "assistant":
            found.append(AskedTurn(len(found), index + 1, n_images, question, turn.text.strip()))
        elif turn.role == "user":
            n_images += turn.parts.count(None)
            question = turn.text.strip()
    return found


def choose_lenders(records: Iterable[Record], seed: int) -> dict[int, Lender]:
    """For each row with images, another row of its source with as many images, but other ones.

    The different images of a source form a circle, in random order, and each row takes the next ones; rows of a
    source that shows only one are left out.
    """
    groups: dict[tuple[str, int], list[Lender]] = defaultdict(list)
    for record in records:
        if not record.reason and record.images:
            groups[record.source, len(record.images)].append((record.row, record.images))
    rng = np.random.default_rng(seed)
    lenders: dict[int, Lender] = {}
    for _, members in sorted(groups.items()):
        first = {images: (row, images) for row, images in reversed(members)}
        different = list(first)
        circle = [different[index] for index in rng.permutation(len(different))]
        following = dict(zip(circle, [*circle[1:], circle[0]], strict=True))
        if len(circle) > 1:
            lenders |= {row: first[following[images]] for row, images in members}
    return lenders

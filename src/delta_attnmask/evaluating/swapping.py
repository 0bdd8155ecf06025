"""The control for looking at the image: which other row of the same source lends its images. No torch here."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from delta_attnmask.records import Record


@dataclass(frozen=True)
class Lender:
    """A row, and the image references that it lends."""

    row: int
    images: tuple[str, ...]


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
    """Backwards over two rounds: what follows is the nearest, and behind it the first that differs from it."""
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

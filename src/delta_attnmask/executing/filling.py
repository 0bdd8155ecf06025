"""Prepare as much of a unit's rows as memory is given; the rest is prepared when these are done."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Outcome = TypeVar("Outcome")


def fill(
    rows: Sequence[Row],
    prepare: Callable[[Sequence[Row]], Iterable[Outcome]],
    n_bytes: Callable[[Outcome], int],
    max_bytes: int,
    at_once: int,
) -> list[Outcome]:
    """The outcomes of the first rows, in order: so many that they have `max_bytes`, or all.

    prepare: gives an outcome for each of some rows. at_once: rows that are prepared before their bytes are counted, by
    which more may be held. At least one row is prepared where there is one.
    """
    outcomes: list[Outcome] = []
    held = 0
    while len(outcomes) < len(rows) and held < max_bytes:
        some = list(prepare(rows[len(outcomes) : len(outcomes) + at_once]))
        held += sum(map(n_bytes, some))
        outcomes += some
    return outcomes

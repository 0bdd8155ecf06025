"""Split vectors into blocks of similar ones, so that work on pairs stays small. Numpy only."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.selecting.embeddings import Vectors
from delta_attnmask.selecting.rules import Positions
from delta_attnmask.selecting.strata import Strata

Floats = NDArray[np.float32]

_N_SAMPLED = 1024  # vectors that a direction is found from
_N_ITERATIONS = 16


def similar_blocks(vectors: Vectors, strata: Strata, max_rows: int) -> Iterator[Positions]:
    """Positions of similar vectors of one stratum, at most `max_rows` together; each position comes once.

    A larger group is halved at the median along the direction in which its vectors vary most, and so on: vectors on
    both sides of a cut don't meet.
    """
    order = np.argsort(strata.codes, kind="stable")
    for members in np.split(order, np.cumsum(strata.sizes)[:-1]):
        yield from _halve(vectors, members, max_rows)


def centred(vectors: Vectors) -> Floats:
    """The vectors less their mean, at length 1 again: what all have in common tells nothing apart."""
    floats: Floats = vectors.astype(np.float32)
    floats -= floats.mean(axis=0)
    lengths = np.linalg.norm(floats, axis=1, keepdims=True)
    floats /= np.where(lengths > 0, lengths, 1)
    return floats


def _halve(vectors: Vectors, members: Positions, max_rows: int) -> Iterator[Positions]:
    if len(members) <= max_rows:
        if len(members):
            yield members
        return
    along = vectors[members].astype(np.float32) @ _main_direction(vectors, members)
    order = np.argsort(along, kind="stable")
    middle = len(members) // 2
    yield from _halve(vectors, np.sort(members[order[:middle]]), max_rows)
    yield from _halve(vectors, np.sort(members[order[middle:]]), max_rows)


def _main_direction(vectors: Vectors, members: Positions) -> Floats:
    """About the first principal component of evenly spaced members, by power iteration from the farthest one."""
    sample: Floats = vectors[members[:: -(-len(members) // _N_SAMPLED)]].astype(np.float32)
    sample -= sample.mean(axis=0)
    direction: Floats = sample[np.argmax(np.linalg.norm(sample, axis=1))]
    for _ in range(_N_ITERATIONS):
        direction = np.asarray((sample @ direction) @ sample, dtype=np.float32)
        direction /= np.float32(max(float(np.linalg.norm(direction)), 1e-12))
    return direction

"""What the rows' embeddings are used for: blocks of similar rows, groups of them, and leaving out near copies."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.candidates import Candidates, Indices, Positions, Vectors
from delta_attnmask.selecting.strata import Strata, strata_of
from delta_attnmask.statistics import Values

Floats = NDArray[np.float32]

CLUSTER = "cluster"  # the column that `with_clusters` adds

_ROWS_PER_CLUSTER = 200
_MAX_CLUSTERS = 256
_MAX_FITTED = 100_000  # rows that the centres are found from
_MAX_COMPARED = 4096  # rows that are compared with each other
_N_SAMPLED = 1024  # vectors that a direction is found from
_N_ITERATIONS = 16


def centred(vectors: Vectors) -> Floats:
    """The vectors less their mean, at length 1 again: what all have in common distinguishes none."""
    floats: Floats = vectors.astype(np.float32)
    floats -= floats.mean(axis=0)
    lengths = np.linalg.norm(floats, axis=1, keepdims=True)
    floats /= np.where(lengths > 0, lengths, 1)
    return floats


def similar_blocks(vectors: Vectors, strata: Strata, max_rows: int) -> Iterator[Positions]:
    """Positions of similar vectors of one stratum, at most `max_rows` together; each position comes once.

    A larger group is halved at the median along the direction in which its vectors vary most, and so on: vectors on
    both sides of a cut don't meet.
    """
    order = np.argsort(strata.codes, kind="stable")
    for members in np.split(order, np.cumsum(strata.sizes)[:-1]):
        yield from _halve(vectors, members, max_rows)


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


def default_clusters(n_candidates: int) -> int:
    """One cluster for 200 rows, from 2 to 256."""
    return int(np.clip(n_candidates // _ROWS_PER_CLUSTER, 2, _MAX_CLUSTERS))


def with_clusters(candidates: Candidates, n_clusters: int, seed: int = 0) -> Candidates:
    """The candidates with a column `cluster`, numbers as text, by k-means on their embeddings.

    Deterministic for a seed. Raises SettingsError without embeddings.
    """
    if n_clusters < 1:
        raise SettingsError(f"clusters={n_clusters}: expected at least 1")
    from sklearn.cluster import MiniBatchKMeans

    vectors = centred(candidates.embeddings())
    model = MiniBatchKMeans(min(n_clusters, len(candidates)), random_state=seed, n_init=3, batch_size=4096)
    model.fit(vectors[:: -(-len(vectors) // _MAX_FITTED)])
    labels = pa.array(model.predict(vectors).astype(str), pa.string())
    return replace(candidates, table=candidates.table.append_column(CLUSTER, labels))


def without_near_duplicates(candidates: Candidates, min_cosine: float) -> Candidates:
    """Of rows that say nearly the same only the best, the first of equal ones.

    min_cosine: of their embeddings, without their common mean, with a row of the same source that stays. In sources of
    more than 4,096 rows only similar ones are compared (`similar_blocks`), so some pairs aren't seen there.
    """
    if not 0 < min_cosine < 1:
        raise SettingsError(f"near_duplicates={min_cosine}: expected a cosine such as 0.95")
    vectors = candidates.embeddings()
    floats = centred(vectors)
    blocks = similar_blocks(vectors, strata_of(candidates.table, ["source"]), _MAX_COMPARED)
    kept = [block[_distinct(floats[block], candidates.values[block], min_cosine)] for block in blocks]
    return candidates.take(np.sort(np.concatenate(kept)))


def without_copies(candidates: Candidates, firsts: Indices | None = None) -> Candidates:
    """Of rows that say the same only the best, the first of equal ones.

    firsts: for each input row the first that says the same; without it, rows with the same bytes do.
    """
    codes = strata_of(candidates.table, ["key"]).codes if firsts is None else firsts[candidates.indices]
    best = np.lexsort((-candidates.values, codes))
    is_first = np.ones(len(best), dtype=bool)
    is_first[1:] = codes[best[1:]] != codes[best[:-1]]
    return candidates.take(np.sort(best[is_first]))


def _distinct(floats: Floats, values: Values, min_cosine: float) -> Positions:
    """Which rows of a block stay, going from the best one down."""
    order = np.argsort(-values, kind="stable")
    sorted_floats = floats[order]
    is_close = np.tril(sorted_floats @ sorted_floats.T >= min_cosine, -1)
    is_kept = np.ones(len(order), dtype=bool)
    for idx in np.flatnonzero(is_close.any(axis=1)):
        is_kept[idx] = not is_kept[is_close[idx]].any()
    return order[is_kept]

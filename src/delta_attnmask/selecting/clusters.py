"""Groups of similar rows as a column, for quotas: k-means on the embeddings, by scikit-learn."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.blocks import centred
from delta_attnmask.selecting.rules import Candidates

COLUMN = "cluster"

_ROWS_PER_CLUSTER = 200
_MAX_CLUSTERS = 256
_MAX_FITTED = 100_000  # rows that the centres are found from


def default_clusters(n_candidates: int) -> int:
    """One cluster for 200 rows, from 2 to 256."""
    return int(np.clip(n_candidates // _ROWS_PER_CLUSTER, 2, _MAX_CLUSTERS))


def with_clusters(candidates: Candidates, n_clusters: int, seed: int = 0) -> Candidates:
    """The candidates with a column `cluster`, numbers as text; empty for the rows that are none.

    Deterministic for a seed. Raises SettingsError without embeddings, or without scikit-learn.
    """
    if n_clusters < 1:
        raise SettingsError(f"clusters={n_clusters}: expected at least 1")
    labels = _cluster(centred(candidates.embeddings()), min(n_clusters, len(candidates)), seed)
    column = np.full(len(candidates.table), "", dtype=object)
    column[candidates.in_table(np.arange(len(candidates)))] = labels.astype(str)
    table = candidates.table.append_column(COLUMN, pa.array(column, pa.string()))
    return replace(candidates, table=table)


def _cluster(vectors: NDArray[np.float32], n_clusters: int, seed: int) -> NDArray[np.int32]:
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(n_clusters, random_state=seed, n_init=3, batch_size=4096)
    model.fit(vectors[:: -(-len(vectors) // _MAX_FITTED)])
    labels: NDArray[np.int32] = model.predict(vectors)
    return labels

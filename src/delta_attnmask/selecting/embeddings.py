"""The rows' embeddings, as `score --embeddings` keeps them, below RUN/embeddings."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.errors import ArtifactError, SettingsError

Vectors = NDArray[np.float16]


def read_embeddings(run: RunFolder, rows: NDArray[np.int64]) -> Vectors:
    """The vectors of some input rows, in their order; `[n_rows, width]`, of length 1. Reads only the shards it needs.

    Raises SettingsError where the run has none, ArtifactError where one of the rows has none.
    """
    if "embeddings" not in run.manifest.settings:
        raise SettingsError(f"{run.path} has no embeddings; score into a new folder with --embeddings")
    order = np.argsort(rows, kind="stable")
    vectors: Vectors | None = None
    n_found = 0
    for part in run.parts("embeddings"):
        edges = run.unit_rows(part.first).start, run.unit_rows(part.last).stop
        wanted = order[slice(*np.searchsorted(rows[order], edges))]
        if not len(wanted):
            continue
        held, found = _read_part(part.path)
        if not np.isin(rows[wanted], held).all():
            raise ArtifactError(f"{part.path} lacks rows that have a score")
        n_found += len(wanted)
        vectors = np.empty((len(rows), found.shape[1]), dtype=np.float16) if vectors is None else vectors
        vectors[wanted] = found[np.searchsorted(held, rows[wanted])]
    if n_found < len(rows):
        raise ArtifactError(f"{run.path / 'embeddings'} lacks {len(rows) - n_found} rows that have a score")
    return np.empty((0, 0), dtype=np.float16) if vectors is None else vectors


def _read_part(path: Path) -> tuple[NDArray[np.int64], Vectors]:
    """The rows that a file holds, ascending, and their vectors."""
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error
    column = table["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False)
    return table["row"].to_numpy(), vectors.reshape(len(table), column.type.list_size)

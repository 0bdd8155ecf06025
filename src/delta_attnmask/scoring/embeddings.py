"""The table of embeddings, one vector for each sample: for diversity, duplicates and clusters."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def embedding_table(embeddings: Mapping[int, NDArray[np.float16]], width: int) -> pa.Table:
    """Columns `row` and `embedding`, a list of `width` numbers, in the order of the rows.

    Without rows it has the same columns, so that it can follow other units'.
    """
    rows = sorted(embeddings)
    flat = np.concatenate([embeddings[row] for row in rows]) if rows else np.zeros(0, dtype=np.float16)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), width)
    return pa.table({"row": pa.array(rows, pa.int64()), "embedding": vectors})

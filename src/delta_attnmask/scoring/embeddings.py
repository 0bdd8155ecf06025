"""One vector for each sample, what the model has made of it halfway: for diversity, duplicates and clusters."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from delta_attnmask.batches import TokenRoles


def middle_block(n_blocks: int) -> int:
    """The block whose output is pooled."""
    return (n_blocks - 1) // 2


def pool_states(states: Tensor, roles: TokenRoles) -> Tensor:
    """Mean over each sample's tokens but the first, at length 1; `[batch, hidden]`, float32.

    The first token draws attention whatever it says, and its huge state would make all samples alike.

    states: `[..., batch, seq, hidden]`; of models with several streams the first one counts.
    """
    stream = states.reshape(-1, *states.shape[-3:])[0].float()
    is_pooled = (roles.is_token & ~roles.is_first).to(stream.device)
    return normalize((stream * is_pooled[..., None]).sum(1), dim=-1)


def embedding_table(embeddings: Mapping[int, NDArray[np.float16]], width: int) -> pa.Table:
    """Columns `row` and `embedding`, a list of `width` numbers, in the order of the rows.

    Without rows it has the same columns, so that it can be put behind other units'.
    """
    rows = sorted(embeddings)
    flat = np.concatenate([embeddings[row] for row in rows]) if rows else np.zeros(0, dtype=np.float16)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float16()), width)
    return pa.table({"row": pa.array(rows, pa.int64()), "embedding": vectors})

"""`exp(loss)`: perplexity per answer token; keeps what the model finds unlikely."""

import numpy as np

from delta_attnmask.derived import Column


def perplexity(loss: Column) -> Column:
    return np.exp(loss)

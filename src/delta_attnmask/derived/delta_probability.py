"""Fall of the answer's probability per token: `exp(-loss) - exp(-masked_loss)`, from -1 to 1."""

import numpy as np

from delta_attnmask.derived import Column


def delta_probability(loss: Column, masked_loss: Column) -> Column:
    return np.exp(-loss) - np.exp(-masked_loss)

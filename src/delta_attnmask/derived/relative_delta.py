"""Δ relative to the loss: `delta / (loss + 0.05)`; how many times its own loss a sample loses by the mask.

The constant keeps answers that the model knows by heart from dividing by zero. Normalisation of this project;
the paper names none.
"""

from delta_attnmask.derived import Column

_FLOOR_NATS = 0.05


def relative_delta(delta: Column, loss: Column) -> Column:
    return delta / (loss + _FLOOR_NATS)

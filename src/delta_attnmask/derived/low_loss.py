"""`-loss`: keeps what the model finds likely. The control that every score must beat."""

from delta_attnmask.derived import Column


def low_loss(loss: Column) -> Column:
    return -loss

"""`delta - loss` in nats: a large rise and a low loss, traded one for one."""

from delta_attnmask.derived import Column


def delta_minus_loss(delta: Column, loss: Column) -> Column:
    return delta - loss

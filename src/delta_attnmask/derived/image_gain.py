"""`loss_without_image - loss` in nats per answer token: what the image adds (VIG, arXiv:2602.17186; VisNec, 2603.01195)."""

from delta_attnmask.derived import Column


def image_gain(loss_without_image: Column, loss: Column) -> Column:
    return loss_without_image - loss

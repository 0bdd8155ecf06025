"""`loss_without_image - loss` in nats per answer token: what the image adds.

VIG (arXiv:2602.17186) and VisNec (arXiv:2603.01195).
"""

from delta_attnmask.derived import Column


def image_gain(loss_without_image: Column, loss: Column) -> Column:
    return loss_without_image - loss

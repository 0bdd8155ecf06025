"""Loss of the answer when the conversation has no image; one more forward. Read by `image_gain` (VIG, VisNec)."""

from delta_attnmask.scoring.rivals import VariantRival
from delta_attnmask.scoring.rivals._variants import without_images

RIVAL = VariantRival(without_images)

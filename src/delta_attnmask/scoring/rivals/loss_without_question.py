"""Loss of the answer when the user's words are left out and the image stays; one more forward. Read by `irs`."""

from delta_attnmask.scoring.rivals import VariantRival
from delta_attnmask.scoring.rivals._variants import without_questions

RIVAL = VariantRival(without_questions)

"""Loss of the answer with neither question nor image; one more forward. Read by `ifd`."""

from delta_attnmask.records import Record
from delta_attnmask.scoring.rivals import VariantRival
from delta_attnmask.scoring.rivals._variants import without_images, without_questions


def _alone(record: Record) -> Record:
    return without_questions(without_images(record) or record)


RIVAL = VariantRival(_alone)

"""The encoded conversations that answers are asked for in.

History is teacher-forced: before the k-th answer stand the data's own earlier answers, not the model's. The prompt is
what stands before the answer in the conversation as the chat template writes it: the very tokens that scoring and
training see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from delta_attnmask.batches import IGNORED_LABEL
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import RowError
from delta_attnmask.evaluating.turns import AskedTurn, Turns, asked_turns
from delta_attnmask.records import Record


@dataclass(frozen=True)
class Question:
    """One answer to be given, in an encoded conversation.

    start, stop: positions of the reference's first token and behind its last in the sample; the prompt ends before.
    swapped_row: whose images are shown instead of the row's own.
    """

    row: int
    asked: AskedTurn
    sample: EncodedSample
    start: int
    stop: int
    swapped_row: int | None = None

    @property
    def reference_ids(self) -> list[int]:
        """The counted tokens of the reference, as far as they follow each other."""
        labels = self.sample.labels[0, self.start : self.stop].tolist()
        n_tokens = labels.index(IGNORED_LABEL) if IGNORED_LABEL in labels else len(labels)
        return labels[:n_tokens]

    @property
    def n_reference_tokens(self) -> int:
        return int((self.sample.labels[0, self.start : self.stop] != IGNORED_LABEL).sum())


def encode_questions(
    encoder: Encoder, record: Record, images: Sequence[Any], turns: Turns, swapped_row: int | None = None
) -> list[Question]:
    """Encode a record once for each number of images that its answers see (once, if all images come first).

    Raises RowError with the reason.
    """
    questions = []
    for n_images, group in groupby(asked_turns(record, turns), key=lambda asked: asked.n_images):
        asked = list(group)
        shown = replace(record, turns=record.turns[: asked[-1].stop], images=record.images[:n_images])
        sample = encoder.encode(shown, images[:n_images])
        if len(sample.answers) != sum(turn.role == "assistant" for turn in shown.turns):
            raise RowError("the model's chat template drops or rewrites turns, so its answers can't be asked for")
        questions += [Question(record.row, one, sample, *sample.answers[one.turn], swapped_row) for one in asked]
    return questions

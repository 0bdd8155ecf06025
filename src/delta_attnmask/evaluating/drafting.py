"""Encoded conversations with the answers asked for, and one forward that gives the references' loss and drafts.

History is teacher-forced: before the k-th answer stand the data's own earlier answers, not the model's. The prompt is
what stands before the answer in the conversation as the chat template writes it: the very tokens that scoring and
training see.

Where the token that a model holds likeliest is the reference's at every position up to j, decoding greedily gives
exactly these tokens, and at j the likeliest one. So the forward that the loss needs anyway answers all turns of a
conversation that the model gets right, and `generate` has only to continue where an answer leaves the reference
(speculative decoding, arXiv:2211.17192, with the reference as its draft).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.batches import IGNORED_LABEL, TokenRoles
from delta_attnmask.encoding.collate import cut_tokens
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.evaluating.asking import AskedTurn, Turns, asked_turns
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.capture import captured_forward, nats
from delta_attnmask.modeling.selfcheck import checked_anatomy
from delta_attnmask.records import Record


@dataclass(frozen=True)
class AskedAnswer:
    """One answer to be given, in an encoded conversation.

    start, stop: positions of the reference's first token and one past its last in the sample; the prompt ends before.
    swapped_row: whose images are shown instead of the row's own.
    """

    row: int
    asked: AskedTurn
    sample: EncodedSample
    start: int
    stop: int
    swapped_row: int | None = None

    @property
    def _labels(self) -> Tensor:
        return self.sample.labels[0, self.start : self.stop]

    @property
    def reference_ids(self) -> list[int]:
        """The counted tokens of the reference, as far as they follow each other."""
        labels: list[int] = self._labels.tolist()
        return labels[: labels.index(IGNORED_LABEL)] if IGNORED_LABEL in labels else labels

    @property
    def n_reference_tokens(self) -> int:
        return int((self._labels != IGNORED_LABEL).sum())

    def mean_loss(self, guesses: "TokenGuesses") -> float:
        """The reference's loss, mean over its tokens in nats."""
        return float(guesses.loss[self.start : self.stop][self._labels != IGNORED_LABEL].mean())


@dataclass(frozen=True)
class TokenGuesses:
    """Of one sample: the nats of each position's token, and the likeliest token there; NaN and -1 off the answers."""

    loss: Tensor
    likeliest: Tensor


@dataclass(frozen=True)
class Draft:
    """What decoding greedily begins with.

    tokens: known so far. n_agreed: how many of these are the reference's. is_finished: nothing follows them.
    """

    tokens: tuple[int, ...]
    n_agreed: int
    is_finished: bool


def encode_answers(
    encoder: Encoder, record: Record, images: Sequence[Any], turns: Turns, swapped_row: int | None = None
) -> list[AskedAnswer]:
    """Encode a record once for each number of images that its answers see (once, if all images come first).

    Raises RowError with the reason.
    """
    answers = []
    for n_images, group in groupby(asked_turns(record, turns), key=lambda asked: asked.n_images):
        asked = list(group)
        shown = replace(record, turns=record.turns[: asked[-1].stop], images=record.images[:n_images])
        sample = encoder.encode(shown, images[:n_images])
        if len(sample.answers) != sum(turn.role == "assistant" for turn in shown.turns):
            raise RowError(
                ReasonCode.TEMPLATE,
                "the model's chat template drops or rewrites turns, so its answers can't be asked for",
            )
        answers += [AskedAnswer(record.row, one, sample, *sample.answers[one.turn], swapped_row) for one in asked]
    return answers


@torch.no_grad()
def guess_tokens(model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> list[TokenGuesses]:
    """Run a batch (padded on the right) once; one result for each sample, as long as the batch's longest."""
    anatomy = checked_anatomy(examine(model), inputs, labels)
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    no_pools = torch.zeros(labels.shape[0], 0, labels.shape[1], device=labels.device)
    with captured_forward(anatomy, inputs, labels, roles, no_pools, []) as forward:
        functions = {"loss": nats, "likeliest": lambda logits, _targets: logits.argmax(-1)}
        values = forward.token_values(forward.final_rows(), functions)
        samples, positions = forward.answer_positions
    loss = torch.full(labels.shape, torch.nan, dtype=torch.float32)
    likeliest = torch.full(labels.shape, -1)
    targets = samples.cpu(), positions.cpu() + 1  # each position predicts the next token
    loss[targets] = values["loss"].float().cpu()
    likeliest[targets] = values["likeliest"].cpu()
    return [TokenGuesses(*pair) for pair in zip(loss, likeliest, strict=True)]


def draft_answer(answer: AskedAnswer, guesses: TokenGuesses, stops: frozenset[int], limit: int) -> Draft:
    """The tokens that decoding greedily begins with, at most `limit` of them."""
    reference = answer.reference_ids
    likeliest = guesses.likeliest[answer.start : answer.start + len(reference)].tolist()
    pairs = zip(reference, likeliest, strict=True)
    n_agreed = next((i for i, (token, guess) in enumerate(pairs) if token != guess), len(reference))
    tokens = tuple(likeliest[: n_agreed + 1][:limit])
    is_finished = len(tokens) == limit or (len(tokens) > 0 and tokens[-1] in stops)
    return Draft(tokens, min(n_agreed, limit), is_finished)


def cut_after(answer: AskedAnswer, tokens: tuple[int, ...]) -> EncodedSample:
    """The sample up to where generating continues: the prompt, followed by the tokens that are known."""
    cut = cut_tokens(answer.sample, answer.start + len(tokens))
    ids = cut.inputs["input_ids"].clone()
    ids[0, answer.start :] = torch.tensor(tokens, dtype=ids.dtype)
    return replace(cut, inputs={**cut.inputs, "input_ids": ids})

"""Encoded conversations with the answers asked for, and one forward that gives the references' loss and drafts.

History is teacher-forced: before the k-th answer stand the data's own earlier answers, not the model's. The prompt is
what stands before the answer in the conversation as the chat template writes it: the same tokens that scoring and
training see.

Where the token that a model holds likeliest is the reference's at every position up to j, decoding greedily gives
exactly these tokens, and at j the likeliest one. So the forward that the loss needs anyway answers all turns of a
conversation that the model gets right, and `generate` has only to continue where an answer leaves the reference
(speculative decoding, arXiv:2211.17192, with the reference as its draft).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from math import nan
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
class TokenGuesses:
    """Of one sample: the nats of each position's token, and the likeliest token there; NaN and -1 off the answers."""

    loss: Tensor
    likeliest: Tensor


@dataclass(eq=False)
class Answer:
    """One answer that is asked for, in an encoded conversation, and what has come of it so far.

    start, stop: positions of the reference's first token and one past its last in the sample; the prompt ends before.
    loss: of the reference, mean over its tokens in nats. tokens: of the model's answer, as far as they are known.
    n_agreed: how many of these are the reference's. error: why there is no answer.
    """

    asked: AskedTurn
    sample: EncodedSample
    start: int
    stop: int
    loss: float = nan
    tokens: tuple[int, ...] = ()
    n_agreed: int = 0
    error: RowError | None = None

    @property
    def _labels(self) -> Tensor:
        return self.sample.labels[0, self.start : self.stop]

    @property
    def reference_ids(self) -> list[int]:
        """The counted tokens of the reference, as far as they follow each other."""
        return list(takewhile(lambda token: token != IGNORED_LABEL, self._labels.tolist()))

    @property
    def n_reference_tokens(self) -> int:
        return int((self._labels != IGNORED_LABEL).sum())

    @property
    def n_prompt(self) -> int:
        """Tokens that stand before the next one to be generated."""
        return self.start + len(self.tokens)

    def has_ended(self, stops: frozenset[int]) -> bool:
        return bool(self.tokens) and self.tokens[-1] in stops

    def is_finished(self, stops: frozenset[int], limit: int) -> bool:
        return len(self.tokens) == limit or self.has_ended(stops)

    def read_loss(self, guesses: TokenGuesses) -> None:
        self.loss = float(guesses.loss[self.start : self.stop][self._labels != IGNORED_LABEL].mean())

    def read_draft(self, guesses: TokenGuesses, limit: int) -> None:
        """Take the tokens that decoding greedily begins with, at most `limit` of them."""
        reference = self.reference_ids
        likeliest = guesses.likeliest[self.start : self.start + len(reference)].tolist()
        pairs = zip(reference, likeliest, strict=True)
        n_agreed = next((index for index, (token, guess) in enumerate(pairs) if token != guess), len(reference))
        self.tokens = tuple(likeliest[: n_agreed + 1][:limit])
        self.n_agreed = min(n_agreed, limit)

    def cut(self) -> EncodedSample:
        """The sample up to where generating continues: the prompt, followed by the tokens that are known."""
        sample = cut_tokens(self.sample, self.n_prompt)
        ids = sample.inputs["input_ids"].clone()
        ids[0, self.start :] = torch.tensor(self.tokens, dtype=ids.dtype)
        return replace(sample, inputs={**sample.inputs, "input_ids": ids})


def encode_answers(encoder: Encoder, record: Record, images: Sequence[Any], turns: Turns) -> list[Answer]:
    """Encode a record once for each number of images that its answers see (once, if all images come first).

    Raises RowError with the reason.
    """
    answers: list[Answer] = []
    for n_images, group in groupby(asked_turns(record, turns), key=lambda asked: asked.n_images):
        asked = list(group)
        shown = replace(record, turns=record.turns[: asked[-1].stop], images=record.images[:n_images])
        sample = encoder.encode(shown, images[:n_images])
        if len(sample.answers) != sum(turn.role == "assistant" for turn in shown.turns):
            raise RowError(
                ReasonCode.TEMPLATE,
                "the model's chat template drops or rewrites turns, so its answers can't be asked for",
            )
        answers += [Answer(one, sample, *sample.answers[one.turn]) for one in asked]
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

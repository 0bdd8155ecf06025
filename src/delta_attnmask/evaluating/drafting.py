"""One forward over the references: their loss, and how far the model would have written the same.

Where the token that a model holds likeliest is the reference's at every position up to j, decoding greedily gives
exactly these tokens, and at j the likeliest one. So the forward that the loss needs anyway answers all turns of a
conversation that the model gets right, and `generate` has only to go on where an answer leaves the reference
(speculative decoding, arXiv:2211.17192, with the reference as its draft).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.batches import IGNORED_LABEL
from delta_attnmask.encoding.collate import cut_tokens
from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.evaluating.questions import Question
from delta_attnmask.modeling.capture import captured_forward, nats
from delta_attnmask.modeling.selfcheck import checked_anatomy


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


@torch.no_grad()
def guess_tokens(model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> list[TokenGuesses]:
    """Run a batch (padded on the right) once; one result for each sample, as long as the batch's longest."""
    anatomy = checked_anatomy(model, inputs, labels)
    no_pools = torch.zeros(labels.shape[0], 0, labels.shape[1], device=labels.device)
    with captured_forward(anatomy, inputs, labels, no_pools, []) as forward:
        functions = {"loss": nats, "likeliest": lambda logits, _targets: logits.argmax(-1)}
        values = forward.token_values(forward.final_rows(), functions)
        samples, positions = forward.answer_positions
    loss = torch.full(labels.shape, torch.nan, dtype=torch.float32)
    likeliest = torch.full(labels.shape, -1)
    places = samples.cpu(), positions.cpu() + 1  # each position predicts the next token
    loss[places] = values["loss"].float().cpu()
    likeliest[places] = values["likeliest"].cpu()
    return [TokenGuesses(*pair) for pair in zip(loss, likeliest, strict=True)]


def mean_loss(question: Question, guesses: TokenGuesses) -> float:
    """The reference's loss, mean over its tokens in nats."""
    span = slice(question.start, question.stop)
    is_counted = question.sample.labels[0, span] != IGNORED_LABEL
    return float(guesses.loss[span][is_counted].mean())


def draft_answer(question: Question, guesses: TokenGuesses, stops: frozenset[int], limit: int) -> Draft:
    """The tokens that decoding greedily begins with, at most `limit` of them."""
    reference = question.reference_ids
    likeliest = guesses.likeliest[question.start : question.start + len(reference)].tolist()
    pairs = zip(reference, likeliest, strict=True)
    n_agreed = next((i for i, (token, guess) in enumerate(pairs) if token != guess), len(reference))
    tokens = tuple(likeliest[: n_agreed + 1][:limit])
    is_finished = len(tokens) == limit or (len(tokens) > 0 and tokens[-1] in stops)
    return Draft(tokens, min(n_agreed, limit), is_finished)


def cut_behind(question: Question, tokens: tuple[int, ...]) -> EncodedSample:
    """The sample up to the place where generating goes on: the prompt, and behind it the tokens that are known."""
    stop = question.start + len(tokens)
    cut = cut_tokens(question.sample, stop)
    ids = cut.inputs["input_ids"].clone()
    ids[0, question.start :] = torch.tensor(tokens, dtype=ids.dtype)
    return EncodedSample(question.row, {**cut.inputs, "input_ids": ids}, cut.labels, cut.n_image_tokens, cut.images)

"""Answers of a model: encoded with what comes before them, the loss of their references, and what it generates.

History is teacher-forced: before the k-th answer come the data's own earlier answers, not the model's. The prompt is
what comes before the answer in the conversation as the chat template writes it: the same tokens that scoring and
training see. Decoding is greedy, in batches padded on the left.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from math import nan
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig

from delta_attnmask.batches import IGNORED_LABEL, EncodedBatch, TokenRoles
from delta_attnmask.encoding.collate import collate, cut_tokens
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import RowError
from delta_attnmask.evaluating.asking import AskedTurn, asked_turns
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.capture import captured_forward
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.selfcheck import checked_anatomy
from delta_attnmask.records import Record


@dataclass(eq=False)
class Answer:
    """One answer that is asked for, in an encoded conversation, and its outcome.

    start, stop: positions of the reference's first token and one past its last in the sample; the prompt ends before.
    swapped_row: whose images are shown instead of the row's own, None for these.
    loss: of the reference, mean over its tokens in nats. tokens: of the model's answer. error: why there is none.
    """

    asked: AskedTurn
    swapped_row: int | None
    sample: EncodedSample
    start: int
    stop: int
    loss: float = nan
    tokens: tuple[int, ...] = ()
    error: RowError | None = None

    @property
    def is_counted(self) -> Tensor:
        """True for the reference's tokens that count, `[stop - start]`."""
        return self.sample.labels[0, self.start : self.stop] != IGNORED_LABEL

    @property
    def n_reference_tokens(self) -> int:
        return int(self.is_counted.sum())

    def read_loss(self, losses: Tensor) -> None:
        """Take the loss from those of the sample's positions, `[seq]`."""
        self.loss = float(losses[self.start : self.stop][self.is_counted].mean())


def encode_answers(
    encoder: Encoder, record: Record, images: Sequence[Any], swapped_row: int | None = None
) -> list[Answer]:
    """Encode a record once for each number of images that its answers see (once, if all images come first).

    Raises RowError with the reason.
    """
    answers: list[Answer] = []
    for n_images, group in groupby(asked_turns(record), key=lambda asked: asked.n_images):
        asked = list(group)
        shown = replace(record, turns=record.turns[: asked[-1].stop], images=record.images[:n_images])
        sample = encoder.encode(shown, images[:n_images])
        answers += [Answer(one, swapped_row, sample, *sample.answers[one.turn]) for one in asked]
    return answers


@torch.no_grad()
def token_losses(model: nn.Module, batch: EncodedBatch) -> Tensor:
    """Nats of each answer token of a batch, NaN at other positions; `[batch, seq]`, float32, on the CPU."""
    inputs, labels = batch.inputs, batch.labels
    anatomy = checked_anatomy(examine(model), inputs, labels)
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    no_pools = torch.zeros(labels.shape[0], 0, labels.shape[1], device=labels.device)
    losses = torch.full(labels.shape, torch.nan)
    with captured_forward(anatomy, inputs, labels, roles, no_pools, []) as forward:
        samples, positions = forward.answer_positions  # each position predicts the next token
        losses[samples.cpu(), positions.cpu() + 1] = forward.token_losses(forward.final_rows()).float().cpu()
    return losses


def plan_generation(answers: Sequence[Answer], batch_tokens: int, limit: int) -> list[list[Answer]]:
    """Batches of similar inputs within `batch_tokens` (longest prompt and `limit` new tokens, times answers).

    A batch runs as many steps as its longest answer has tokens, so those whose references are about as long go
    together, and among them those of about the same prompt.
    """

    def likeness(answer: Answer) -> tuple[list[str], int, int]:
        return sorted(answer.sample.inputs), answer.n_reference_tokens.bit_length(), answer.start

    batches: list[list[Answer]] = []
    for answer in sorted(answers, key=likeness):
        batch = batches[-1] if batches else []
        longest = max(one.start for one in [*batch, answer]) + limit
        is_alike = all(one.sample.inputs.keys() == answer.sample.inputs.keys() for one in batch[:1])
        if batch and is_alike and longest * (len(batch) + 1) <= batch_tokens:
            batch.append(answer)
        else:
            batches.append([answer])
    return batches


@torch.no_grad()
def generate_answers(
    loaded: LoadedModel, pad_token_id: int, answers: Sequence[Answer], stops: frozenset[int], limit: int
) -> None:
    """Generate a batch of answers, each up to and with the token that ends it, or `limit` tokens."""
    prompts = [cut_tokens(answer.sample, answer.start) for answer in answers]
    batch = collate(prompts, pad_token_id, "left").to(loaded.device, loaded.dtype)
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pad_token_id,
        use_cache=True,
    )
    model: Any = loaded.model
    with generating_by(model, config):
        given = model.generate(**batch.inputs)
    for answer, tokens in zip(answers, given[:, batch.labels.shape[1] :].tolist(), strict=True):
        end = next((index for index, token in enumerate(tokens) if token in stops), limit)
        answer.tokens = tuple(tokens[: end + 1])  # without what `generate` pads after the end


def stop_tokens(loaded: LoadedModel, special_ids: set[int], answers: Sequence[Answer]) -> frozenset[int]:
    """The tokens that end a turn: those of the model's generation config, and the one that the template writes."""
    config = loaded.model.generation_config
    given: Any = config.eos_token_id if isinstance(config, GenerationConfig) else None
    ends = set(given if isinstance(given, list) else [given]) - {None}
    last = {int(answer.sample.inputs["input_ids"][0, answer.stop - 1]) for answer in answers}
    return frozenset(ends | (last & special_ids))


@contextmanager
def generating_by(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Put `config` in place of the model's own, whose penalties and temperatures `generate` would else mix in."""
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before

"""Answers by the model's own `generate`: greedy, batches padded on the left, with a cache of keys and values."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from delta_attnmask.encoding.collate import collate
from delta_attnmask.evaluating.drafting import Answer
from delta_attnmask.modeling.load import LoadedModel


def plan_generation(answers: Sequence[Answer], batch_tokens: int, limit: int) -> list[list[Answer]]:
    """Batches of alike inputs within `batch_tokens` (longest prompt and `limit` new tokens, times answers).

    A batch runs as many steps as its longest answer has tokens, so those whose references have about as much left go
    together, and among them those of about the same prompt.
    """

    def likeness(answer: Answer) -> tuple[list[str], int, int]:
        n_expected = answer.n_reference_tokens - answer.n_agreed
        return sorted(answer.sample.inputs), n_expected.bit_length(), answer.n_prompt

    batches: list[list[Answer]] = [[]]
    for answer in sorted(answers, key=likeness):
        batch = batches[-1]
        longest = max(one.n_prompt for one in [*batch, answer]) + limit
        is_alike = all(one.sample.inputs.keys() == answer.sample.inputs.keys() for one in batch[:1])
        if not batch or (is_alike and longest * (len(batch) + 1) <= batch_tokens):
            batch.append(answer)
        else:
            batches.append([answer])
    return batches if batches[0] else []


@torch.no_grad()
def finish_answers(
    loaded: LoadedModel, pad_token_id: int, answers: Sequence[Answer], stops: frozenset[int], limit: int
) -> None:
    """Generate the rest of a batch of answers, each up to and with the token that ends it, or `limit` tokens."""
    samples = [answer.cut() for answer in answers]
    batch = collate(samples, pad_token_id, "left").to(loaded.device, loaded.dtype)
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max(limit - len(answer.tokens) for answer in answers),
        do_sample=False,
        eos_token_id=sorted(stops) or None,
        pad_token_id=pad_token_id,
        use_cache=True,
    )
    model: Any = loaded.model
    with generating_by(model, config):
        given = model.generate(**batch.inputs)
    for answer, ids in zip(answers, given[:, batch.labels.shape[1] :].tolist(), strict=True):
        tokens = (*answer.tokens, *ids)
        end = next((index for index, token in enumerate(tokens) if token in stops), len(tokens))
        answer.tokens = tokens[: min(end + 1, limit)]  # without what `generate` pads after the end


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

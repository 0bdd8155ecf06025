"""Answers by the model's own `generate`: greedy, batches padded on the left, with a cache of keys and values."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from delta_attnmask.encoding.collate import collate
from delta_attnmask.evaluating.drafting import AskedAnswer, cut_after
from delta_attnmask.modeling.load import LoadedModel


@dataclass(frozen=True)
class Opening:
    """An answer that is begun: the tokens that are known of it, and how many more the reference has."""

    answer: AskedAnswer
    tokens: tuple[int, ...] = ()
    n_expected: int = 0

    @property
    def n_prompt(self) -> int:
        return self.answer.start + len(self.tokens)

    @property
    def inputs(self) -> list[str]:
        """The names of what the model is given; only openings with the same ones can share a batch."""
        return sorted(self.answer.sample.inputs)


def plan_generation(openings: Sequence[Opening], batch_tokens: int, limit: int) -> list[list[Opening]]:
    """Batches of alike inputs within `batch_tokens` (longest prompt and `limit` new tokens, times answers).

    A batch runs as many steps as its longest answer has tokens, so those whose references have about as much left go
    together, and among them those of about the same prompt.
    """
    batches: list[list[Opening]] = []
    longest = 0
    for opening in sorted(openings, key=lambda o: (o.inputs, o.n_expected.bit_length(), o.n_prompt)):
        length = opening.n_prompt + limit
        is_alike = bool(batches) and batches[-1][0].inputs == opening.inputs
        if is_alike and max(longest, length) * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(opening)
            longest = max(longest, length)
        else:
            batches.append([opening])
            longest = length
    return batches


class Generator:
    """Generates with one model. stops: tokens that end an answer. limit: most tokens an answer may have."""

    def __init__(self, loaded: LoadedModel, pad_token_id: int, stops: frozenset[int], limit: int) -> None:
        self.loaded, self.stops, self.limit = loaded, stops, limit
        self._pad_token_id = pad_token_id

    @torch.no_grad()
    def finish(self, openings: Sequence[Opening]) -> list[tuple[int, ...]]:
        """The whole answers of a batch, each up to and with the token that ended it, or `limit` tokens."""
        samples = [cut_after(opening.answer, opening.tokens) for opening in openings]
        batch = collate(samples, self._pad_token_id, "left").to(self.loaded.device, self.loaded.dtype)
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=max(self.limit - len(opening.tokens) for opening in openings),
            do_sample=False,
            eos_token_id=sorted(self.stops) or None,
            pad_token_id=self._pad_token_id,
            use_cache=True,
        )
        model: Any = self.loaded.model
        with generating_by(model, config):
            given = model.generate(**batch.inputs)
        new = given[:, batch.labels.shape[1] :].tolist()
        return [self._cut((*opening.tokens, *ids)) for opening, ids in zip(openings, new, strict=True)]

    def _cut(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Without what `generate` pads after the end of an answer."""
        end = next((index for index, token in enumerate(ids) if token in self.stops), len(ids))
        return ids[: min(end + 1, self.limit)]


def stop_tokens(loaded: LoadedModel, special_ids: set[int], answers: Sequence[AskedAnswer]) -> frozenset[int]:
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

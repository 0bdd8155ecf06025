"""Answers by the model's own `generate`: batches padded on the left, with a cache of keys and values."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.evaluating.drafting import cut_behind
from delta_attnmask.evaluating.questions import Question
from delta_attnmask.modeling.load import LoadedModel


@dataclass(frozen=True)
class Opening:
    """An answer that is begun: the tokens that are known of it, and how many more the reference has."""

    question: Question
    tokens: tuple[int, ...] = ()
    n_expected: int = 0

    @property
    def n_prompt(self) -> int:
        return self.question.start + len(self.tokens)


def plan_generation(openings: Sequence[Opening], batch_tokens: int, limit: int) -> list[list[Opening]]:
    """Batches of alike inputs within `batch_tokens` (longest prompt and `limit` new tokens, times answers).

    A batch runs as many steps as its longest answer has tokens, so those whose references have about as much left go
    together, and among them those of about the same prompt.
    """
    ordered = sorted(openings, key=lambda o: (sorted(o.question.sample.inputs), o.n_expected.bit_length(), o.n_prompt))
    batches: list[list[Opening]] = []
    for opening in ordered:
        if not batches or _is_closed(batches[-1], opening, batch_tokens, limit):
            batches.append([])
        batches[-1].append(opening)
    return batches


def _is_closed(batch: Sequence[Opening], opening: Opening, batch_tokens: int, limit: int) -> bool:
    longest = max(opening.n_prompt, *(other.n_prompt for other in batch)) + limit
    return (
        set(batch[0].question.sample.inputs) != set(opening.question.sample.inputs)
        or longest * (len(batch) + 1) > batch_tokens
    )


class Generator:
    """Generates with one model.

    stops: tokens that end an answer. limit: most tokens an answer may have. temperature: 0 decodes greedily;
    else it is sampled from the whole distribution.
    """

    def __init__(
        self, loaded: LoadedModel, pad_token_id: int, stops: frozenset[int], limit: int, temperature: float = 0.0
    ) -> None:
        self.loaded, self.stops, self.limit, self.temperature = loaded, stops, limit, temperature
        self._pad_token_id = pad_token_id

    @torch.no_grad()
    def finish(self, openings: Sequence[Opening]) -> list[tuple[int, ...]]:
        """The whole answers of a batch, each up to and with the token that ended it, or `limit` tokens."""
        samples: list[EncodedSample] = [cut_behind(opening.question, opening.tokens) for opening in openings]
        batch = collate(samples, self._pad_token_id, "left").to(self.loaded.device, self.loaded.dtype)
        n_most = max(self.limit - len(opening.tokens) for opening in openings)
        model: Any = self.loaded.model
        with _plain_generation(model, self._config(n_most)):
            given = model.generate(**batch.inputs)
        new = given[:, batch.labels.shape[1] :].tolist()
        return [self._cut((*opening.tokens, *ids)) for opening, ids in zip(openings, new, strict=True)]

    def _config(self, n_most: int) -> GenerationConfig:
        sampling = {"do_sample": True, "temperature": self.temperature, "top_k": 0} if self.temperature else {}
        return GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=n_most,
            eos_token_id=sorted(self.stops) or None,
            pad_token_id=self._pad_token_id,
            use_cache=True,
            **({"do_sample": False} | sampling),
        )

    def _cut(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Without what `generate` pads behind the end of an answer."""
        end = next((place for place, token in enumerate(ids) if token in self.stops), len(ids))
        return ids[: min(end + 1, self.limit)]


def stop_tokens(loaded: LoadedModel, special_ids: set[int], questions: Sequence[Question]) -> frozenset[int]:
    """The tokens that end a turn: those of the model's generation config, and the one that the template writes."""
    config = loaded.model.generation_config
    given: Any = config.eos_token_id if isinstance(config, GenerationConfig) else None
    ends = set(given if isinstance(given, list) else [given]) - {None}
    last = {int(question.sample.inputs["input_ids"][0, question.stop - 1]) for question in questions}
    return frozenset(ends | (last & special_ids))


@contextmanager
def _plain_generation(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Put `config` in place of the model's own, whose penalties and temperatures `generate` would else mix in."""
    before = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = before

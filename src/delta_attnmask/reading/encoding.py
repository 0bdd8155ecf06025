"""A record becomes what the model's forward takes, with the answer tokens marked.

Answer tokens are found by prefix difference: the chat template is rendered up to each assistant turn with and without
its text, and the difference is mapped through the tokenizer's offsets. That needs no marks in the template.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from delta_attnmask.batches import IGNORED_LABEL
from delta_attnmask.errors import RowError, UnsupportedModelError
from delta_attnmask.records import Record, Turn

_CONTEXT = 3  # tokens behind an answer that help to find it in the expanded prompt

Span = tuple[int, int]  # of characters
Run = list[int]  # of token positions


@dataclass(frozen=True)
class EncodedSample:
    """One sample as a batch of one.

    inputs: what the model's forward takes; `input_ids` is `[1, seq]`.
    labels: `[1, seq]`, unshifted; -100 where a position is no answer token.
    """

    row: int
    inputs: dict[str, Tensor]
    labels: Tensor
    n_image_tokens: int

    @property
    def n_tokens(self) -> int:
        return self.labels.shape[1]

    @property
    def n_answer_tokens(self) -> int:
        return int((self.labels[:, 1:] != IGNORED_LABEL).sum())

    @property
    def n_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.inputs.values())


class Encoder:
    """Encodes records for one model.

    processor: what `AutoProcessor.from_pretrained` returned (a plain tokenizer for text-only models).
    image_token_id: the placeholder that stands in `input_ids` where image features go; None for text-only models.
    max_tokens: longer rows are refused; nothing is ever truncated.

    Raises UnsupportedModelError where there is no chat template or no fast tokenizer.
    """

    def __init__(self, processor: Any, image_token_id: int | None = None, max_tokens: int | None = None):
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._takes_images = hasattr(processor, "image_processor")
        self._image_token_id = image_token_id
        self._max_tokens = max_tokens
        if not getattr(processor, "chat_template", None) and not getattr(self._tokenizer, "chat_template", None):
            raise UnsupportedModelError(
                "this model has no chat template, so its prompts can't be written; "
                "save one with its processor (chat_template.jinja)"
            )
        if not getattr(self._tokenizer, "is_fast", False):
            raise UnsupportedModelError("this model has no fast tokenizer, so answer tokens can't be located in its prompts")
        self.special_ids, self._special_text = _special_tokens(self._tokenizer)

    @property
    def pad_token_id(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    def encode(self, record: Record, images: Sequence[Any]) -> EncodedSample:
        """Encode one good record with its images (PIL, in order); raises RowError with the reason."""
        self._refuse(record)
        text, spans = self._render(record)
        options = self._options(text)
        tokenized = self._tokenizer(text, return_offsets_mapping=True, **options)
        runs = [self._answer_run(tokenized, span) for span in spans]
        inputs = dict(self._call(text, images, options))
        ids = inputs["input_ids"][0].tolist()
        if self._max_tokens is not None and len(ids) > self._max_tokens:
            raise RowError(f"{len(ids)} tokens, more than the model's {self._max_tokens}")
        labels = torch.full_like(inputs["input_ids"], IGNORED_LABEL)
        for run in self._place(runs, tokenized["input_ids"], ids):
            labels[0, run] = inputs["input_ids"][0, run]
        n_image_tokens = ids.count(self._image_token_id) if self._image_token_id is not None else 0
        return EncodedSample(record.row, inputs, labels, n_image_tokens)

    def _refuse(self, record: Record) -> None:
        if record.images and not self._takes_images:
            raise RowError("the row has an image, but this model takes none")
        if any(found := self._special_text.search(turn.text) for turn in record.turns):
            raise RowError(f"the text contains the model's special token {found.group()!r}")  # type: ignore[union-attr]

    def _render(self, record: Record) -> tuple[str, list[tuple[Span, int]]]:
        """The whole prompt, and for each assistant turn its text's character span and where the turn ends."""
        messages = [self._message(turn) for turn in record.turns]
        whole = self._template(messages, False)
        spans = []
        for index, turn in enumerate(record.turns):
            if turn.role != "assistant":
                continue
            before = self._template(messages[:index], True)
            after = self._template(messages[: index + 1], False)
            if not (after.startswith(before) and whole.startswith(after)):
                raise RowError("the chat template rewrites earlier turns, so the answer can't be located in the prompt")
            start = after.find(turn.text.strip(), len(before))
            if start < 0:
                raise RowError("the chat template changes the answer's text, so it can't be located in the prompt")
            spans.append(((start, start + len(turn.text.strip())), len(after)))
        return whole, spans

    def _message(self, turn: Turn) -> dict[str, Any]:
        if not self._takes_images:
            return {"role": turn.role, "content": turn.text}
        parts = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in turn.parts]
        return {"role": turn.role, "content": parts}

    def _template(self, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
        try:
            rendered = self._processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # templates raise whatever they like, jinja2's own errors among it
            raise RowError(f"the chat template refuses the conversation: {error}") from error
        return str(rendered)

    def _options(self, text: str) -> dict[str, Any]:
        """Templates that write the beginning-of-text token themselves must not get a second one."""
        bos = getattr(self._tokenizer, "bos_token", None)
        return {"add_special_tokens": False} if bos and text.startswith(bos) else {}

    def _call(self, text: str, images: Sequence[Any], options: dict[str, Any]) -> Any:
        arguments: dict[str, Any] = {"text": [text], "return_tensors": "pt", **options}
        if images:
            arguments["images"] = [list(images)]
        try:
            return self._processor(**arguments)
        except Exception as error:  # image processors raise many kinds; each means that this row can't be encoded
            raise RowError(f"the model's processor refuses the row: {error}") from error

    def _answer_run(self, tokenized: Any, span: tuple[Span, int]) -> Run:
        """Positions of an answer: every token that overlaps its text, and the token that ends the turn."""
        (start, stop), turn_end = span
        offsets, ids = tokenized["offset_mapping"], tokenized["input_ids"]
        run = [i for i, (first, last) in enumerate(offsets) if first < stop and last > start]
        if not run:
            raise RowError("the answer has no token of its own")
        for index in range(run[-1] + 1, len(ids)):
            if offsets[index][1] > turn_end:
                break
            if ids[index] in self.special_ids:
                return [*run, index]
            if self._tokenizer.decode([ids[index]]).strip():
                break
        return run

    def _place(self, runs: list[Run], plain: list[int], expanded: list[int]) -> list[Run]:
        """Where the runs of the unexpanded prompt lie in the prompt whose image placeholders are expanded."""
        if plain == expanded:
            return runs
        kept = [i for i, token in enumerate(expanded) if not self._continues_image(expanded, i)]
        if [expanded[i] for i in kept] == plain:
            return [[kept[i] for i in run] for run in runs]
        return _match_from_right(runs, plain, expanded)

    def _continues_image(self, ids: list[int], index: int) -> bool:
        return index > 0 and ids[index] == ids[index - 1] == self._image_token_id


def _match_from_right(runs: list[Run], plain: list[int], expanded: list[int]) -> list[Run]:
    """Find each run, with the tokens behind it as context, at its rightmost place before the next run."""
    placed: list[Run] = []
    limit = len(expanded)
    for run in reversed(runs):
        first, end = run[0], run[-1] + 1
        context = min(_CONTEXT, len(plain) - end)
        wanted = plain[first : end + context]
        at = next((i for i in range(limit - len(wanted), -1, -1) if expanded[i : i + len(wanted)] == wanted), None)
        if at is None:
            raise RowError("the answer can't be located among the model's image tokens")
        placed.append([at + i - first for i in run])
        limit = at + context
    return placed[::-1]


def _special_tokens(tokenizer: Any) -> tuple[set[int], re.Pattern[str]]:
    """Ids of all tokens that are structure, and a pattern that finds one written out in a text."""
    added = tokenizer.added_tokens_decoder
    special = {token: str(value) for token, value in added.items() if value.special}
    special |= {tokenizer.convert_tokens_to_ids(text): text for text in tokenizer.all_special_tokens}
    written = sorted((re.escape(text) for text in special.values() if text.strip()), key=len, reverse=True)
    return set(special), re.compile("|".join(written) or r"(?!)")

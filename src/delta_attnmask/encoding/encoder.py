"""A record becomes what the model's forward takes, with the answer tokens marked.

Answer tokens are found by difference: the chat template is rendered with the answers and with other words in their
places, and what differs is mapped through the tokenizer's offsets. That needs no marks in the template.

Counted are the tokens of each answer as the template writes it, and the special token that ends its turn if there is
one. A token that reaches over the answer's edge counts as a whole: LLaVA-1.5's format merges the space after
"ASSISTANT:" into the first one, and it ends no turn.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise, takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from delta_attnmask.batches import IGNORED_LABEL
from delta_attnmask.encoding.processing import Enlargement, Inputs, Processing, Prompt, or_reason
from delta_attnmask.errors import ReasonCode, RowError, UnsupportedModelError
from delta_attnmask.modeling.anatomy import examine, text_config
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.records import ImageRef, Record, Turn

_PROBE = "\ufdd0"  # takes an answer's place; Unicode's promise is that no text contains it
_BORDER = 2  # tokens before an image that may merge with line breaks that the processor puts around it

Run = list[int]  # of token positions


class Answer(NamedTuple):
    """Where an answer's text is in the prompt, and where its turn ends; in characters."""

    start: int
    stop: int
    turn_end: int


@dataclass(frozen=True)
class _Draft:
    """A record whose answers are found in its prompt, before the processor puts image tokens there.

    ids: of the prompt's tokens. runs: of each answer's tokens among them.
    """

    record: Record
    prompt: Prompt
    ids: list[int]
    runs: list[Run]


@dataclass(frozen=True)
class EncodedSample:
    """One sample as a batch of one.

    inputs: what the model's forward takes; `input_ids` is `[1, seq]`.
    labels: `[1, seq]`, unshifted; -100 where a position is no answer token.
    images: the row's image references, in order.
    answers: for each assistant turn, the position of its answer's first token and one past its last.
    """

    row: int
    inputs: dict[str, Tensor]
    labels: Tensor
    n_image_tokens: int
    images: tuple[ImageRef, ...] = ()
    answers: tuple[tuple[int, int], ...] = ()

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
    image_token_id: the placeholder in `input_ids` where image features go; None for text-only models.
    max_tokens: longer rows are refused; nothing is ever truncated.
    dtype: of floating-point inputs (pixels); as the processor gives them if None.

    Raises UnsupportedModelError where there is no chat template or no fast tokenizer.
    """

    def __init__(
        self,
        processor: Any,
        image_token_id: int | None = None,
        max_tokens: int | None = None,
        dtype: torch.dtype | None = None,
    ):
        self._processor, self._dtype = processor, dtype
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self.takes_images = hasattr(processor, "image_processor")
        self._image_token_id = image_token_id
        self._placeholder = getattr(processor, "image_token_id", image_token_id)  # as the chat template writes it
        self._max_tokens = max_tokens
        self._processing = Processing(processor)
        self._enlargement = Enlargement(getattr(processor, "image_processor", None), self._process)
        if not getattr(processor, "chat_template", None) and not getattr(self._tokenizer, "chat_template", None):
            raise UnsupportedModelError(
                "this model has no chat template, so its prompts can't be written; "
                "save one with its processor (chat_template.jinja)"
            )
        if not getattr(self._tokenizer, "is_fast", False):
            raise UnsupportedModelError(
                "this model has no fast tokenizer, so answer tokens can't be located in its prompts"
            )
        self.special_ids, self._special_text = _special_tokens(self._tokenizer, processor)

    @property
    def pad_token_id(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special ones."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has by itself."""
        found = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return [len(ids) for ids in found["input_ids"]]

    def encode(self, record: Record, images: Sequence[Any]) -> EncodedSample:
        """Encode one good record with its images (PIL, in order); raises RowError with the reason."""
        draft = self._draft(record, images)
        return self._label(draft, self._processing.run(draft.prompt))

    def encode_all(self, rows: Sequence[tuple[Record, Sequence[Any]]]) -> list[EncodedSample | RowError]:
        """The same for several records and their images, in order, in less time where the images are small."""
        drafts = [or_reason(self._draft, record, images) for record, images in rows]
        prompts = [draft.prompt for draft in drafts if isinstance(draft, _Draft)]
        processed = iter(self._processing.run_all(prompts))
        pairs = [(draft, draft if isinstance(draft, RowError) else next(processed)) for draft in drafts]
        return [
            found if isinstance(found, RowError) else or_reason(self._label, draft, found) for draft, found in pairs
        ]

    def _draft(self, record: Record, images: Sequence[Any]) -> "_Draft":
        self._refuse(record)
        text, answers = self._render(record)
        tokenized = self._tokenizer(text, return_offsets_mapping=True, verbose=False, **self._processing.options(text))
        ids = tokenized["input_ids"]
        self._refuse_length(len(ids))  # before images are processed
        self._enlargement.refuse(images)
        edges = np.array(tokenized["offset_mapping"]).reshape(-1, 2)
        runs = [self._answer_run(text, tokenized, edges, answer) for answer in answers]
        return _Draft(record, Prompt(text, tuple(images)), ids, runs)

    def _label(self, draft: "_Draft", inputs: Inputs) -> EncodedSample:
        """Find the answers among the tokens that the processor made of the prompt."""
        ids = inputs["input_ids"][0].tolist()
        self._refuse_length(len(ids))
        labels = [IGNORED_LABEL] * len(ids)
        placed = _place(draft.runs, draft.ids, ids, self._placeholder)
        for position in chain.from_iterable(placed):
            labels[position] = ids[position]
        n_image_tokens = ids.count(self._image_token_id) if self._image_token_id is not None else 0
        spans = tuple((run[0], run[-1] + 1) for run in placed)
        record = draft.record
        if self._dtype is not None:  # here, in a worker process, and before it is held and shared
            inputs = {name: t.to(self._dtype) if t.is_floating_point() else t for name, t in inputs.items()}
        return EncodedSample(record.row, inputs, torch.tensor([labels]), n_image_tokens, tuple(record.images), spans)

    def _refuse(self, record: Record) -> None:
        if record.images and not self.takes_images:
            raise RowError(ReasonCode.NO_IMAGE_MODEL, "the row has an image, but this model takes none")
        if any(found := self._special_text.search(turn.text) for turn in record.turns):
            raise RowError(ReasonCode.SPECIAL_TOKEN, f"the text contains the model's special token {found.group()!r}")  # type: ignore[union-attr]

    def _refuse_length(self, n_tokens: int) -> None:
        if self._max_tokens is not None and n_tokens > self._max_tokens:
            raise RowError(ReasonCode.TOO_MANY_TOKENS, f"{n_tokens} tokens, more than the model's {self._max_tokens}")

    def _render(self, record: Record) -> tuple[str, list[Answer]]:
        """The whole prompt, and where the answers are in it."""
        whole = self._template(record.turns)
        probed = [replace(turn, parts=(_PROBE,)) if turn.role == "assistant" else turn for turn in record.turns]
        first, *after = self._template(probed).split(_PROBE)
        texts = [turn.text for turn in record.turns if turn.role == "assistant"]
        if len(after) != len(texts) or not whole.startswith(first):
            raise RowError(
                ReasonCode.TEMPLATE,
                "the model's chat template drops or rewrites turns, so answers can't be located in it",
            )
        answers, at = [], len(first)
        for text, following in zip(texts, after, strict=True):
            stop = at + len(_as_written(text, following, whole, at))
            common = takewhile(lambda pair: pair[0] == pair[1], zip(following, after[-1], strict=False))
            answers.append(Answer(at, stop, stop + len(list(common))))
            at = stop + len(following)
        return whole, answers

    def _message(self, turn: Turn) -> dict[str, Any]:
        if not self.takes_images:
            return {"role": turn.role, "content": turn.text}
        parts = turn.parts or ("",)
        content = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
        return {"role": turn.role, "content": content}

    def _template(self, turns: Sequence[Turn]) -> str:
        messages = [self._message(turn) for turn in turns]
        try:
            return str(self._processor.apply_chat_template(messages, tokenize=False))
        except Exception as error:  # templates raise whatever they like, jinja2's own errors among it
            raise RowError(
                ReasonCode.TEMPLATE, f"the model's chat template refuses the conversation: {error}"
            ) from error

    def _process(self, image: Any) -> Inputs:
        """The inputs of a conversation about one image."""
        text = self._template([Turn("user", (None, "a")), Turn("assistant", ("b",))])
        return self._processing.run(Prompt(text, (image,)))

    def _answer_run(self, text: str, tokenized: Any, edges: NDArray[np.int64], answer: Answer) -> Run:
        """Positions of an answer: every token that overlaps its text, and the token that ends the turn."""
        offsets, ids = tokenized["offset_mapping"], tokenized["input_ids"]
        run: Run = ((edges[:, 0] < answer.stop) & (edges[:, 1] > answer.start)).nonzero()[0].tolist()
        if not run:
            raise RowError(ReasonCode.NO_ANSWER_TOKEN, "the answer has no token of its own")
        for index in range(run[-1] + 1, len(ids)):
            first, last = offsets[index]
            if last > answer.turn_end:
                break
            if ids[index] in self.special_ids:
                return [*run, index]
            if text[first:last].strip():
                break
        return run


def make_encoder(loaded: LoadedModel, max_tokens: int | None = None) -> Encoder:
    """The encoder that fits a loaded model. max_tokens: longer rows are refused, as those longer than the model are."""
    limits = [getattr(text_config(loaded.model), "max_position_embeddings", None), max_tokens]
    longest = min((limit for limit in limits if limit), default=None)
    return Encoder(loaded.processor, examine(loaded.model).image_token_id, longest, loaded.dtype)


def _as_written(answer: str, following: str, prompt: str, at: int) -> str:
    """The answer as it is at a place of the prompt: as given, or with the white space around it stripped."""
    for written in (answer, answer.strip(), answer.lstrip(), answer.rstrip()):
        if prompt.startswith(written + following, at):
            return written
    raise RowError(
        ReasonCode.TEMPLATE, "the model's chat template changes the answer's text, so it can't be located in the prompt"
    )


def _place(runs: list[Run], plain: list[int], expanded: list[int], placeholder: int | None) -> list[Run]:
    """Where the runs of the unexpanded prompt are in the prompt whose image placeholders are expanded.

    Between two images both hold the same tokens. So each stretch of the plain prompt, from its first answer to the
    next image, is looked for from the right, before the place of the stretch that follows it.
    """
    if plain == expanded:
        return runs
    edges = [-1, *(i for i, token in enumerate(plain) if token == placeholder), len(plain)]
    placed: list[Run] = []
    limit = len(expanded)
    for before, stop in reversed(list(pairwise(edges))):
        inside = [run for run in runs if before < run[0] < stop]
        if inside:
            first, n_least = inside[0][0], inside[-1][-1] + 1 - inside[0][0]
            shift = _find_from_right(expanded, plain[first:stop], n_least, limit) - first
            placed = [[i + shift for i in run] for run in inside] + placed
            limit = before + 1 + shift + _BORDER
    return placed


def _find_from_right(ids: list[int], wanted: list[int], n_least: int, limit: int) -> int:
    """The rightmost place before `limit` where `wanted` is; its last tokens may differ if an image touches them."""
    for n_tokens in range(len(wanted), max(n_least, len(wanted) - _BORDER) - 1, -1):
        for at in range(limit - n_tokens, -1, -1):
            if ids[at] == wanted[0] and ids[at : at + n_tokens] == wanted[:n_tokens]:
                return at
    raise RowError(ReasonCode.NO_ANSWER_TOKEN, "the answer can't be located among the model's image tokens")


def _special_tokens(tokenizer: Any, processor: Any) -> tuple[set[int], re.Pattern[str]]:
    """Ids of all tokens that are structure, and a pattern that finds one, or a placeholder, written out in a text."""
    added = tokenizer.added_tokens_decoder
    special = {token: str(value) for token, value in added.items() if value.special}
    special |= {tokenizer.convert_tokens_to_ids(text): text for text in tokenizer.all_special_tokens}
    placeholders = {getattr(processor, name, None) for name in ("image_token", "video_token", "boi_token")}
    texts = {text for text in {*special.values(), *placeholders} if isinstance(text, str) and text.strip()}
    written = sorted(map(re.escape, texts), key=len, reverse=True)
    return set(special), re.compile("|".join(written) or r"(?!)")

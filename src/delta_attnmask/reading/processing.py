"""What a model's processor makes of prompts and their images; of several in one call where that changes nothing.

Getting ready takes a processor as long as processing small images does: 32 calls cost twice what one call for 32 rows
costs. Prompts with as many images of the same sizes give tensors of the same shape but for the text's length, so what
comes of them together can be cut apart without knowing the model. For each kind of prompt that is tried on two first,
which must come out exactly as each alone; if they don't, that kind is processed one by one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from delta_attnmask.errors import RowError

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_KINDS = 4096  # remembered

Inputs = dict[str, Tensor]
Done = TypeVar("Done")
Kind = tuple[tuple[tuple[int, int], ...], int, bool]  # sizes of the images, placeholders in the text, begins with bos


@dataclass(frozen=True)
class Prompt:
    """A conversation as the chat template writes it, with its images in order."""

    text: str
    images: "tuple[Image, ...]" = ()


class Processing:
    """Calls a processor. processor: what `AutoProcessor.from_pretrained` returned, or a plain tokenizer."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._bos: str = getattr(getattr(processor, "tokenizer", processor), "bos_token", None) or ""
        self._placeholder = getattr(processor, "image_token", None)
        self._is_alike: dict[Kind, bool] = {}  # whether prompts of a kind come out together as they do alone

    def options(self, text: str) -> dict[str, Any]:
        """Templates that write the beginning-of-text token themselves must not get a second one."""
        return {"add_special_tokens": False} if self._has_bos(text) else {}

    def run(self, prompt: Prompt) -> Inputs:
        """What the model's forward takes, as a batch of one; raises RowError with what the processor says."""
        return dict(self._call([prompt], return_tensors="pt", **self.options(prompt.text)))

    def run_all(self, prompts: Sequence[Prompt]) -> list[Inputs | RowError]:
        """The same for each of several prompts, in order, or why it can't be had."""
        by_kind: dict[Kind, list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_kind.setdefault(self._kind(prompt), []).append(index)
        found: dict[int, Inputs | RowError] = {}
        for kind, indices in by_kind.items():
            found |= zip(indices, self._run_kind(kind, [prompts[index] for index in indices]), strict=True)
        return [found[index] for index in range(len(prompts))]

    def _run_kind(self, kind: Kind, prompts: Sequence[Prompt]) -> list[Inputs | RowError]:
        tried: list[Inputs | RowError] = []
        if len(prompts) > 1 and kind not in self._is_alike:
            tried = [or_reason(self.run, prompt) for prompt in prompts[:2]]
            if not any(isinstance(outcome, RowError) for outcome in tried):
                self._remember(kind, _are_equal(self._run_together(prompts[:2]), tried))
        rest = prompts[len(tried) :]
        together = self._run_together(rest) if len(rest) > 1 and self._is_alike.get(kind) else None
        return [*tried, *([or_reason(self.run, prompt) for prompt in rest] if together is None else together)]

    def _run_together(self, prompts: Sequence[Prompt]) -> list[Inputs] | None:
        """One call for prompts of a kind, cut apart again; None where it fails or can't be cut.

        Texts are asked for as lists: padding them would change the tokenizer's state, which threads share.
        """
        options = self.options(prompts[0].text)
        if hasattr(self._processor, "image_processor"):
            options = {"text_kwargs": {**options, "return_tensors": None}, "images_kwargs": {"return_tensors": "pt"}}
        try:
            return _cut_apart(self._call(prompts, **options), len(prompts))
        except RowError:  # of one prompt or of all; each alone will tell
            return None

    def _call(self, prompts: Sequence[Prompt], **options: Any) -> Mapping[str, Any]:
        arguments: dict[str, Any] = {"text": [prompt.text for prompt in prompts], **options}
        if prompts[0].images:
            arguments["images"] = [list(prompt.images) for prompt in prompts]
        try:
            found: Mapping[str, Any] = self._processor(**arguments)
        except Exception as error:  # processors raise many kinds; each means that this row can't be encoded
            raise RowError(f"the model's processor refuses the row: {error}") from error
        return found

    def _kind(self, prompt: Prompt) -> Kind:
        n_placeholders = prompt.text.count(self._placeholder) if self._placeholder else 0
        return tuple(image.size for image in prompt.images), n_placeholders, self._has_bos(prompt.text)

    def _has_bos(self, text: str) -> bool:
        return self._bos != "" and text.startswith(self._bos)

    def _remember(self, kind: Kind, is_alike: bool) -> None:
        if len(self._is_alike) >= _MAX_KINDS:
            self._is_alike.clear()
        self._is_alike[kind] = is_alike


def or_reason(step: Callable[..., Done], *arguments: Any) -> Done | RowError:
    """What `step` gives, or the RowError that it raises."""
    try:
        return step(*arguments)
    except RowError as error:
        return error


def _cut_apart(found: Mapping[str, Any], n_prompts: int) -> list[Inputs] | None:
    """Each prompt's share of every tensor's first dimension, and its own entry of every list."""
    shares = {name: _shares(value, n_prompts) for name, value in found.items()}
    if any(share is None for share in shares.values()):
        return None
    return [{name: share[index] for name, share in shares.items() if share} for index in range(n_prompts)]


def _shares(value: Any, n_prompts: int) -> Sequence[Tensor] | None:
    if isinstance(value, Tensor):
        return value.chunk(n_prompts) if value.ndim and len(value) % n_prompts == 0 else None
    if isinstance(value, list) and len(value) == n_prompts:
        return [torch.tensor([entry]) for entry in value]
    return None


def _are_equal(some: Sequence[Inputs] | None, others: Sequence[Inputs | RowError]) -> bool:
    return some is not None and all(
        isinstance(other, dict)
        and one.keys() == other.keys()
        and all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)
        for one, other in zip(some, others, strict=True)
    )

"""What a model's processor makes of prompts and their images; of several in one call where that changes nothing.

32 calls cost twice what one call for 32 rows with small images costs. Prompts with as many images of the same sizes
give tensors of the same shape but for the text's length, so what comes of them together can be cut apart without
knowing the model. For each kind of prompt that is tried on two first, which must come out exactly as each alone.

What a processor makes of a row's images is bounded before it is called (`Enlargement`): the caps of `ImageLimits` count
pixels as they are in the files, but a processor that brings the shorter side to 336 pixels makes 3,360,000 columns of
an image of 1x10,000, and one that cuts tiles makes a dozen pictures of a single pixel.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.images import ImageLimits

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_KINDS = 4096  # remembered
_MAX_IMAGES = 8  # of a prompt that is processed with others
_MAX_BYTES = 8 << 20  # of pixels made by one call for several prompts; more takes longer than one by one

Inputs = dict[str, Tensor]
Size = tuple[int, int]
# What prompts have in common whose tensors have the same shapes but for the text: the sizes of their images, the number
# of placeholders, and whether the template writes the token that begins the text.
Kind = tuple[tuple[Size, ...], int, bool]
Done = TypeVar("Done")


@dataclass(frozen=True)
class Prompt:
    """A conversation as the chat template writes it, with its images in order."""

    text: str
    images: "tuple[Image, ...]" = ()


class Processing:
    """Calls a processor. processor: what `AutoProcessor.from_pretrained` returned, or a plain tokenizer."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._bos = str(getattr(getattr(processor, "tokenizer", processor), "bos_token", None) or "")
        self._placeholder = str(getattr(processor, "image_token", None) or "")
        self._n_bytes: dict[Kind, int | None] = {}  # of a prompt's pixels; None where a kind is processed one by one

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
        found: list[Inputs | RowError] = []
        if kind not in self._n_bytes and len(prompts) > 1 and len(kind[0]) <= _MAX_IMAGES:
            found = [or_reason(self.run, prompt) for prompt in prompts[:2]]
            self._try_out(kind, prompts[:2], [inputs for inputs in found if not isinstance(inputs, RowError)])
        n_bytes = self._n_bytes.get(kind)
        step = 1 if n_bytes is None else max(1, _MAX_BYTES // max(n_bytes, 1))
        for start in range(len(found), len(prompts), step):
            some = prompts[start : start + step]
            together = None if n_bytes is None or len(some) == 1 else self._run_together(some, n_bytes)
            found += together or [or_reason(self.run, prompt) for prompt in some]
        return found

    def _try_out(self, kind: Kind, prompts: Sequence[Prompt], alone: Sequence[Inputs]) -> None:
        """Note whether prompts come out of one call as they do alone; nothing where the processor refuses one."""
        if len(self._n_bytes) >= _MAX_KINDS:
            self._n_bytes.clear()
        if len(alone) == len(prompts):
            n_bytes = _n_pixel_bytes(alone[0])
            together = self._run_together(prompts, n_bytes) or []
            is_same = len(together) == len(alone) and all(map(_are_equal, together, alone))
            self._n_bytes[kind] = n_bytes if is_same else None

    def _run_together(self, prompts: Sequence[Prompt], n_bytes: int) -> list[Inputs] | None:
        """One call for prompts of a kind, cut apart again; None where it fails, pads or makes another amount of pixels.

        Texts are asked for as lists: padding them would change the tokenizer's state, which threads share.
        """
        options = self.options(prompts[0].text)
        if hasattr(self._processor, "image_processor"):
            text_options = {**options, "return_tensors": None, "padding": False}
            options = {"text_kwargs": text_options, "images_kwargs": {"return_tensors": "pt"}}
        try:
            made = self._call(prompts, **options)
            shares = {name: _shares(value, len(prompts)) for name, value in made.items()}
        except (RowError, TypeError, ValueError, RuntimeError):  # of one prompt or of all; each alone will show which
            return None
        found = [{name: share[index] for name, share in shares.items()} for index in range(len(prompts))]
        return found if all(_is_whole(inputs, n_bytes) for inputs in found) else None

    def _call(self, prompts: Sequence[Prompt], **options: Any) -> Mapping[str, Any]:
        arguments: dict[str, Any] = {"text": [prompt.text for prompt in prompts], **options}
        if prompts[0].images:
            arguments["images"] = [list(prompt.images) for prompt in prompts]
        try:
            found: Mapping[str, Any] = self._processor(**arguments)
        except Exception as error:  # processors raise many kinds; each means that this row can't be encoded
            raise RowError(ReasonCode.PROCESSOR_REFUSED, f"the model's processor refuses the row: {error}") from error
        return found

    def _kind(self, prompt: Prompt) -> Kind:
        n_placeholders = prompt.text.count(self._placeholder) if self._placeholder else 0
        return tuple(image.size for image in prompt.images), n_placeholders, self._has_bos(prompt.text)

    def _has_bos(self, text: str) -> bool:
        return self._bos != "" and text.startswith(self._bos)


def or_reason(step: Callable[..., Done], *arguments: Any) -> Done | RowError:
    """What `step` gives, or the RowError that it raises."""
    try:
        return step(*arguments)
    except RowError as error:
        return error


def _shares(value: Any, n_prompts: int) -> Sequence[Tensor]:
    """Each prompt's share of a tensor's first dimension, or its own entry of a list.

    Raises TypeError, ValueError or RuntimeError for what can't be cut.
    """
    if isinstance(value, Tensor) and value.ndim and len(value) % n_prompts == 0:
        return value.chunk(n_prompts)
    if isinstance(value, list) and len(value) == n_prompts:
        return [torch.tensor([entry]) for entry in value]
    raise ValueError(f"{type(value).__name__} can't be cut into {n_prompts}")


def _is_whole(inputs: Inputs, n_bytes: int) -> bool:
    """Whether nothing is padding and the pixels are as many as this kind of prompt has alone."""
    is_token = inputs.get("attention_mask")
    return is_token is not None and bool(is_token.all()) and _n_pixel_bytes(inputs) == n_bytes


def _n_pixel_bytes(inputs: Inputs) -> int:
    return sum(value.nbytes for value in inputs.values() if isinstance(value, Tensor) and value.is_floating_point())


def _are_equal(one: Inputs, other: Inputs) -> bool:
    if one.keys() != other.keys() or not all(isinstance(value, Tensor) for value in other.values()):
        return False
    return all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


# What becomes of images

_FEW = 8  # images, whatever becomes of them
_MAX_SIZES = 4096  # remembered


class Enlargement:
    """Refuses rows whose images become more than `max_pixels` together, or half of that as the model's inputs.

    The former take a byte a colour; the latter four, and processors hold them several times while they stack them.
    image_processor: of the model. process: gives the model's inputs for one image; may raise RowError.
    """

    def __init__(
        self,
        image_processor: Any,
        process: "Callable[[Image], Mapping[str, Any]]",
        max_pixels: int = ImageLimits().max_row_pixels,
    ) -> None:
        size: Mapping[str, int] = getattr(image_processor, "size", None) or {}
        # With both edges, Qwen's first is a number of pixels, and the second bounds what comes of an image.
        self._shorter_side = 0 if size.get("longest_edge") else size.get("shortest_edge") or 0
        self._makes_square = hasattr(image_processor, "pad_to_square")
        self._max_pixels = max_pixels
        self._count_made = lru_cache(_MAX_SIZES)(partial(_count_made, process))

    def refuse(self, images: "Sequence[Image]") -> None:
        """Raise RowError for images that would take too much memory in the processor or after it.

        The latter is looked at where there are many: one image of each size is processed, and remembered.
        """
        sizes = Counter(image.size for image in images)
        self._bound(sizes, self._count_resized, self._max_pixels)
        if len(images) > _FEW:
            self._bound(sizes, self._count_made, self._max_pixels // 2)

    def _bound(self, sizes: Counter[Size], count: Callable[[Size], int], allowed: int) -> None:
        n_pixels = 0
        for size, n_images in sizes.items():
            n_pixels += n_images * count(size)
            if n_pixels > allowed:
                raise RowError(
                    ReasonCode.IMAGE_ENLARGED,
                    f"the model's processor would make more than {allowed} pixels of the row's images; "
                    f"one of {size[0]}x{size[1]} becomes {count(size)}",
                )

    def _count_resized(self, size: Size) -> int:
        """Before anything is cropped: as it is, with its shorter side at the target, or padded to a square."""
        short, long = sorted(size)
        enlarged = long * self._shorter_side**2 // short
        return max(short * long, enlarged, long**2 if self._makes_square else 0)


def _count_made(process: "Callable[[Image], Mapping[str, Any]]", size: Size) -> int:
    from PIL import Image

    found = process(Image.new("RGB", size))
    n_values: int = sum(value.numel() for value in found.values() if value.is_floating_point())
    return n_values // 3

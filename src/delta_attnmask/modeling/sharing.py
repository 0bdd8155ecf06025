"""An image that several samples of a batch share goes through the vision tower once."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from delta_attnmask.modeling.anatomy import Anatomy

# Largest relative difference of image features that another batch size may cause.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_METHOD = "get_image_features"
_PRIME = 1_000_003

_can_share: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@contextmanager
def shared_images(model: nn.Module) -> Iterator[None]:
    """Encode equal images of a batch once, where the model has `get_image_features` with one result an image.

    The first time, a model's features are computed both ways; one whose features differ never shares.
    """
    owner = _owner(model)
    if owner is None or _METHOD in vars(owner):
        yield
        return
    original = getattr(owner, _METHOD)
    setattr(owner, _METHOD, _sharing(owner, original))
    try:
        yield
    finally:
        delattr(owner, _METHOD)


def image_cost(anatomy: Anatomy) -> float:
    """What encoding an image token costs, in tokens of the decoder, by their weights; 0 where none is shared."""
    if _owner(anatomy.model) is None:
        return 0.0
    head = anatomy.model.get_output_embeddings().weight  # type: ignore[operator]
    language = {id(weight) for weight in (*anatomy.decoder.parameters(), head)}
    n_vision = sum(weight.numel() for weight in anatomy.model.parameters() if id(weight) not in language)
    return n_vision / sum(weight.numel() for weight in anatomy.blocks.parameters())


def _owner(model: nn.Module) -> nn.Module | None:
    """The innermost module that gives image features."""
    return next((module for module in reversed(list(model.modules())) if hasattr(type(module), _METHOD)), None)


def _sharing(owner: nn.Module, original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def encode(*args: Any, **kwargs: Any) -> Any:
        images = _Images.of(signature.bind(*args, **kwargs).arguments)
        if images is None or _can_share.get(owner) is False or len(images.kept) == len(images.places):
            return original(*args, **kwargs)
        features = _expand(original(**images.distinct_arguments()), images.places)
        if owner not in _can_share:
            everything = original(*args, **kwargs)
            _can_share[owner] = features is not None and _agree(features, everything)
            return everything
        return original(*args, **kwargs) if features is None else features

    return encode


class _Images:
    """The images of one call: which are distinct, and where each of them is among the distinct.

    Only calls whose every tensor has one entry an image (Qwen-VL's pixels: some rows an image) are understood.

    sizes: how many rows of `pixel_values` each takes. kept: the first of each distinct image.
    places: for each image its place in `kept`.
    """

    def __init__(self, arguments: dict[str, Any], pixels: Tensor, sizes: list[int]):
        self._arguments = arguments
        self._parts = torch.split(pixels, sizes)
        first = _first_equal(self._parts, pixels, sizes)
        self.kept = sorted(set(first))
        self.places = [self.kept.index(image) for image in first]

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> "_Images | None":
        flat = {**arguments, **arguments.get("kwargs", {})}
        flat.pop("kwargs", None)
        pixels, grid = flat.get("pixel_values"), flat.get("image_grid_thw")
        if not isinstance(pixels, Tensor) or pixels.ndim < 2:
            return None
        sizes: list[int] = [1] * len(pixels) if grid is None else grid.prod(-1).tolist()
        others = [value for name, value in flat.items() if name != "pixel_values" and isinstance(value, Tensor)]
        is_plain = sum(sizes) == len(pixels) and all(value.ndim and len(value) == len(sizes) for value in others)
        return cls(flat, pixels, sizes) if is_plain else None

    def distinct_arguments(self) -> dict[str, Any]:
        """The call's arguments for the distinct images alone; what holds one entry an image is cut down with them."""
        index = torch.tensor(self.kept)
        cut = {
            name: value[index.to(value.device)]
            for name, value in self._arguments.items()
            if isinstance(value, Tensor) and name != "pixel_values"
        }
        pixels = torch.cat([self._parts[image] for image in self.kept])
        return {**self._arguments, **cut, "pixel_values": pixels}


def _first_equal(images: Sequence[Tensor], pixels: Tensor, sizes: list[int]) -> list[int]:
    """For each image the first one that equals it; itself where there is none before."""
    rows_per_entry = pixels[0].numel() // pixels.shape[-1]
    numbers = _fingerprints(pixels.flatten(0, -2), [size * rows_per_entry for size in sizes])
    first = [numbers.index(number) for number in numbers]
    pairs = [(image, other) for image, other in enumerate(first) if image != other]
    is_equal = [(images[image] == images[other]).all() for image, other in pairs if sizes[image] == sizes[other]]
    if len(is_equal) == len(pairs) and (not pairs or bool(torch.stack(is_equal).all())):
        return first
    return list(range(len(images)))  # a fingerprint met twice by chance


def _fingerprints(pixels: Tensor, sizes: list[int]) -> list[int]:
    """A number for each image, made of its bits in whole numbers, so that the order of summation doesn't matter.

    pixels: `[row, value]`. sizes: how many rows each image takes.
    """
    bits = pixels.contiguous()
    if bits.is_floating_point():
        bits = bits.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[bits.element_size()])
    rows = bits.sum(-1, dtype=torch.int64)
    lengths = torch.tensor(sizes, device=rows.device)
    image = torch.arange(len(sizes), device=rows.device).repeat_interleave(lengths, output_size=len(rows))
    position = torch.arange(len(rows), device=rows.device) - (lengths.cumsum(0) - lengths)[image]
    numbers = torch.zeros(len(sizes), dtype=torch.int64, device=rows.device)
    return list(numbers.index_add_(0, image, rows * (position * _PRIME + 1)).tolist())


def _expand(output: Any, places: list[int]) -> Any:
    """The output for all images, given the one for the distinct images; None where it isn't one entry an image."""
    if isinstance(output, Tensor | list | tuple):
        return _expand_features(output, places)
    features: Any = getattr(output, "pooler_output", None)
    expanded = _expand_features(features, places)
    if expanded is None:
        return None
    changed = copy.copy(output)
    changed["pooler_output"] = expanded
    if getattr(output, "deepstack_features", None) is not None:
        sizes = [len(part) for part in features]
        changed["deepstack_features"] = [_expand_layer(layer, places, sizes) for layer in output.deepstack_features]
    return changed


def _expand_features(features: Any, places: list[int]) -> Any:
    if features is None or len(features) != max(places) + 1:
        return None
    if isinstance(features, Tensor):
        return features[torch.tensor(places, device=features.device)]
    return type(features)(features[place] for place in places)


def _expand_layer(layer: Any, places: list[int], sizes: list[int]) -> Any:
    """One deepstack layer: a tensor an image, or (before transformers 5.23) all of them in one tensor."""
    if not isinstance(layer, Tensor):
        return _expand_features(layer, places)
    parts = torch.split(layer, sizes)
    return torch.cat([parts[place] for place in places])


def _agree(features: Any, others: Any) -> bool:
    """Whether two outputs hold the same features but for rounding."""
    found, expected = _tensors(features), _tensors(others)
    return len(found) == len(expected) and all(
        one.shape == other.shape and _is_close(one, other) for one, other in zip(found, expected, strict=True)
    )


def _is_close(one: Tensor, other: Tensor) -> bool:
    scale = other.float().abs().max().clamp(min=1e-6)
    return bool((one - other).float().abs().max() <= scale * _TOLERANCE.get(other.dtype, 1e-4))


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, list | tuple):
        return [tensor for part in output for tensor in _tensors(part)]
    return [*_tensors(output.pooler_output), *_tensors(getattr(output, "deepstack_features", None) or [])]

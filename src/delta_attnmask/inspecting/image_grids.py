"""Where each image token is on its picture, for models whose image tokens are a regular grid over each picture.

Two layouts are known. Models in the manner of Qwen-VL state each picture's grid in `image_grid_thw`. The model types in
`_SQUARE` cut each picture, resized as a whole or cropped at its centre, into a square grid. All others (tiles,
resamplers, image states outside the sequence) are refused rather than guessed.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.inspecting.inspection import Box
from delta_attnmask.modeling.load import LoadedModel

_SQUARE = frozenset({"llava", "vipllava", "gemma3", "paligemma"})
_WHOLE = Box(0.0, 0.0, 1.0, 1.0)

Size = tuple[int, int]  # width, height


def image_grids(
    loaded: LoadedModel, inputs: Mapping[str, Any], n_tokens: int, sizes: Sequence[Size]
) -> list[list[Box]]:
    """For each picture the part of it that each of its image tokens shows, in reading order.

    inputs: of a batch of one, as the processor made them. n_tokens: image tokens of the row. sizes: of its pictures.
    Raises UnsupportedModelError for a model whose layout isn't a known grid.
    """
    config: Any = loaded.model.config
    if "image_grid_thw" in inputs:
        grids = _stated_grids(loaded, inputs)
    elif config.model_type in _SQUARE:
        grids = _square_grids(loaded, inputs, n_tokens, sizes)
    else:
        raise _unknown(loaded, "the image tokens of this model type aren't known to be a regular grid over each image")
    if len(grids) != len(sizes) or sum(map(len, grids)) != n_tokens:
        raise _unknown(loaded, f"{n_tokens} image tokens don't fit the grids of {len(sizes)} images")
    return grids


def _stated_grids(loaded: LoadedModel, inputs: Mapping[str, Any]) -> list[list[Box]]:
    merged = int(loaded.processor.image_processor.merge_size)
    return [
        _grid(n_columns // merged, n_rows // merged, _WHOLE)
        for _, n_rows, n_columns in inputs["image_grid_thw"].tolist()
    ]


def _square_grids(
    loaded: LoadedModel, inputs: Mapping[str, Any], n_tokens: int, sizes: Sequence[Size]
) -> list[list[Box]]:
    n_images, _, height, width = inputs["pixel_values"].shape
    side = math.isqrt(n_tokens // len(sizes))
    processor = loaded.processor.image_processor
    is_cut_up = n_images != len(sizes) or "image_sizes" in inputs
    if is_cut_up or height != width or side * side * len(sizes) != n_tokens or getattr(processor, "do_pad", False):
        raise _unknown(loaded, "its processor pads the images or cuts them into tiles")
    return [_grid(side, side, _kept_by(processor, size)) for size in sizes]


def _kept_by(processor: Any, size: Size) -> Box:
    """The part of a picture that the image processor keeps: all of it, or its centre."""
    if not getattr(processor, "do_center_crop", False):
        return _WHOLE
    resized, cropped = dict(processor.size), dict(processor.crop_size)
    edge = resized.get("shortest_edge")
    half_x, half_y = (
        min(1.0, cropped[name] / (edge * side / min(size) if edge else resized[name])) / 2
        for name, side in zip(("width", "height"), size, strict=True)
    )
    return Box(0.5 - half_x, 0.5 - half_y, 0.5 + half_x, 0.5 + half_y)


def _grid(n_columns: int, n_rows: int, within: Box) -> list[Box]:
    """Equal cells in reading order; neighbours share their edges exactly."""
    xs = [within.left + (within.right - within.left) * column / n_columns for column in range(n_columns + 1)]
    ys = [within.top + (within.bottom - within.top) * row / n_rows for row in range(n_rows + 1)]
    return [Box(left, top, right, bottom) for (top, bottom), (left, right) in product(pairwise(ys), pairwise(xs))]


def _unknown(loaded: LoadedModel, why: str) -> UnsupportedModelError:
    name = type(loaded.model).__name__
    return UnsupportedModelError(f"{name}: which part of an image each image token shows is unknown: {why}")

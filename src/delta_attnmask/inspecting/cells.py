"""Where on the picture each image token lies: asked of the processor and the model, with no layout of any family.

The processor is given pictures that say where they are: a ramp from left to right, one from top to bottom, black, and
white. Whatever it resizes, crops, cuts into tiles, pads or flattens, each of its pixel values then tells which place
of the picture it came from. Which token it goes to is told by `modeling.origins`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import RowError, UnsupportedModelError
from delta_attnmask.inspecting.inspection import Box
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.origins import pixel_owners
from delta_attnmask.modeling.positions import with_positions
from delta_attnmask.records import Record

_LEVELS = 255  # of grey
_FROM_PICTURE = 0.5  # of the span between black and white; less is padding, or mostly so
_ROUNDING = 1 / 12 / _LEVELS**2  # variance that grey levels add to a ramp
_NARROWEST = 0.25 / _LEVELS
_SAME_EDGE = 0.1  # of the narrowest cell

Paint = Callable[[int, int], NDArray[np.float64]]  # width, height -> grey levels `[height, width]`, 0 to 1


@dataclass(frozen=True)
class Place:
    """Which picture of the row a token shows, and which part of it."""

    picture: int
    box: Box


@dataclass(frozen=True)
class Places:
    """The place of each image token of a row in reading order; or none, and why not."""

    found: tuple[Place | None, ...] = ()
    fault: str = ""


class PlaceFinder:
    """Finds where image tokens lie, once for each size of picture."""

    def __init__(self, loaded: LoadedModel, encoder: Encoder):
        self._loaded = loaded
        self._encoder = encoder
        self._known: dict[tuple[tuple[int, int], ...], Places] = {}

    def find(self, record: Record, images: Sequence[Any]) -> Places:
        """The places of a row's image tokens; a model whose layout can't be told has a fault instead."""
        sizes = tuple(image.size for image in images)
        if sizes not in self._known:
            try:
                self._known[sizes] = Places(tuple(token_places(self._loaded, self._encoder, record, images)))
            except (UnsupportedModelError, RowError) as error:
                self._known[sizes] = Places(fault=str(error))
        return self._known[sizes]


def token_places(loaded: LoadedModel, encoder: Encoder, record: Record, images: Sequence[Any]) -> list[Place | None]:
    """For each image token in reading order its place; None for those that show nothing (line breaks, padding).

    Depends on the sizes of the images alone. Costs five calls of the processor and some of the vision tower.
    Raises UnsupportedModelError where image tokens are mixtures of patches.
    """

    def encode(paints: Sequence[Paint]) -> EncodedSample:
        return encoder.encode(record, [_draw(paint, *image.size) for paint, image in zip(paints, images, strict=True)])

    same = [_flat(1.0)] * len(images)
    black, white = encode([_flat(0.0)] * len(images)), encode(same)
    probes = {
        "x": encode([_ramp_x] * len(images)),
        "y": encode([_ramp_y] * len(images)),
        "picture": encode([_flat(number / max(1, len(images) - 1)) for number in range(len(images))]),
    }
    noise = encode([_noise] * len(images))
    moved = {name: _move(value, loaded) for name, value in with_positions(loaded.model, noise.inputs).items()}
    owners = pixel_owners(examine(loaded.model), moved)
    values = [_Values.of(owner.cpu(), name, black, white, probes) for name, owner in owners.items()]
    return _places(_Values.join(values), noise.n_image_tokens, len(images))


@dataclass(frozen=True)
class _Values:
    """Pixel values that come from a picture: the token that each goes to, and where it came from; all `[value]`."""

    owner: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    picture: NDArray[np.float64]

    @classmethod
    def of(
        cls, owner: Tensor, name: str, black: EncodedSample, white: EncodedSample, probes: dict[str, EncodedSample]
    ) -> "_Values":
        low, high = (sample.inputs[name].double().numpy() for sample in (black, white))
        is_from_picture = (high - low > _FROM_PICTURE * (high - low).max()) & (owner.numpy() >= 0)
        span = (high - low)[is_from_picture]
        read = {
            axis: (sample.inputs[name].double().numpy()[is_from_picture] - low[is_from_picture]) / span
            for axis, sample in probes.items()
        }
        return cls(owner.numpy()[is_from_picture], **read)

    @classmethod
    def join(cls, parts: Sequence["_Values"]) -> "_Values":
        names = ("owner", "x", "y", "picture")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _places(values: _Values, n_tokens: int, n_pictures: int) -> list[Place | None]:
    counts = np.bincount(values.owner, minlength=n_tokens)
    picture = _means(values.owner, values.picture, counts) * max(1, n_pictures - 1)
    spans = [_aligned(_spans(values.owner, along, counts), counts > 0) for along in (values.x, values.y)]
    places: list[Place | None] = []
    for token in range(n_tokens):
        (left, right), (top, bottom) = (span[token].tolist() for span in spans)
        box = Box(left, top, right, bottom)
        places.append(Place(round(float(picture[token])), box) if counts[token] else None)
    return places


def _spans(owner: NDArray[np.int64], along: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Where each token begins and ends along an axis, in shares of the picture; `[token, 2]`.

    The values of a cell are spread evenly, so its half width is √3 times their standard deviation.
    """
    centre = _means(owner, along, counts)
    variance = _means(owner, (along - centre[owner]) ** 2, counts) - _ROUNDING
    half = math.sqrt(3) * np.sqrt(np.maximum(variance, _NARROWEST**2))
    return np.clip(np.stack([centre - half, centre + half], axis=1), 0, 1)


def _aligned(spans: NDArray[np.float64], is_shown: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same spans with edges that all but meet put together, so that neighbours share an edge."""
    edges = spans[is_shown].ravel()
    if not len(edges):
        return spans
    narrowest = (spans[is_shown, 1] - spans[is_shown, 0]).min()
    order = edges.argsort()
    group = np.cumsum(np.diff(edges[order], prepend=edges[order[0]]) > _SAME_EDGE * narrowest)
    shared = np.bincount(group, weights=edges[order]) / np.bincount(group)
    aligned = spans.copy()
    edges[order] = shared[group]
    aligned[is_shown] = edges.reshape(-1, 2)
    return aligned


def _means(owner: NDArray[np.int64], values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of the values of each token; 0 where a token has none."""
    sums = np.bincount(owner, weights=values, minlength=len(counts))
    means: NDArray[np.float64] = sums / np.maximum(counts, 1)
    return means


def _ramp_x(width: int, height: int) -> NDArray[np.float64]:
    return np.broadcast_to((np.arange(width) + 0.5) / width, (height, width))


def _ramp_y(width: int, height: int) -> NDArray[np.float64]:
    return np.broadcast_to(((np.arange(height) + 0.5) / height)[:, None], (height, width))


def _flat(level: float) -> Paint:
    return lambda width, height: np.full((height, width), level)


def _noise(width: int, height: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).random((height, width))


def _draw(paint: Paint, width: int, height: int) -> Image.Image:
    levels = np.rint(paint(width, height) * _LEVELS).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _move(value: Any, loaded: LoadedModel) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(loaded.device, loaded.dtype if value.is_floating_point() else value.dtype)

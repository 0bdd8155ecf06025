"""Encoded samples become batches: by length, within a token budget, padded on the right (on the left to generate)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from delta_attnmask.batches import IGNORED_LABEL, EncodedBatch
from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.records import ImageRef

Side = Literal["left", "right"]

_OVERHEAD = 0.025  # of the budget: what a batch costs whatever is in it; set against what it pads
_MAX_SAMPLES = 512  # of a batch; bounds the time that planning takes


def plan_batches(
    samples: Sequence[EncodedSample], batch_tokens: int, image_cost: float = 0.0
) -> list[list[EncodedSample]]:
    """Group samples of similar length; a batch's longest sample times its size stays within `batch_tokens`.

    Samples with and without images never share a batch: their inputs have other keys.
    image_cost: what encoding an image token costs, in tokens of the decoder. Samples of the same images are put
        together where that saves more (a batch encodes an image once) than the padding that it brings.
    """
    by_length = sorted(samples, key=lambda s: (sorted(s.inputs), -s.n_tokens, s.row))
    plans = [_cut(by_length, batch_tokens, image_cost)]
    images = [sample.images for sample in samples if sample.images]
    if image_cost and len(set(images)) < len(images):
        plans.append(_cut(_by_images(samples), batch_tokens, image_cost))
    return min(plans, key=lambda plan: plan[0])[1]


def _by_images(samples: Sequence[EncodedSample]) -> list[EncodedSample]:
    """Longest first, but those of the same images follow each other."""
    longest: dict[tuple[ImageRef, ...], int] = {}
    first: dict[tuple[ImageRef, ...], int] = {}
    for sample in samples:
        longest[sample.images] = max(sample.n_tokens, longest.get(sample.images, 0))
        first.setdefault(sample.images, sample.row)
    return sorted(samples, key=lambda s: (sorted(s.inputs), -longest[s.images], first[s.images], -s.n_tokens, s.row))


def _cut(
    ordered: Sequence[EncodedSample], batch_tokens: int, image_cost: float
) -> tuple[float, list[list[EncodedSample]]]:
    """The cheapest batches of samples in this order: the shortest way over the places where one may end.

    Returns their cost too, in tokens of the decoder, padding included.
    """
    lengths = [sample.n_tokens for sample in ordered]
    names = [frozenset(sample.inputs) for sample in ordered]
    numbers: dict[tuple[ImageRef, ...], int] = {}  # references take long to compare
    images = [numbers.setdefault(sample.images, len(numbers)) for sample in ordered]
    costs, begins = [0.0], [0]  # of the cheapest way to each place, and where its last batch begins
    for stop in range(1, len(ordered) + 1):
        longest, images_cost, cheapest, begin = 0, 0.0, math.inf, 0
        seen: set[int] = set()
        for start in range(stop - 1, max(stop - 1 - _MAX_SAMPLES, -1), -1):
            longest = max(longest, lengths[start])
            n_positions = longest * (stop - start)
            if start < stop - 1 and (n_positions > batch_tokens or names[start] != names[start + 1]):
                break
            if image_cost and images[start] not in seen:
                seen.add(images[start])
                images_cost += image_cost * ordered[start].n_image_tokens
            if (cost := costs[start] + n_positions + images_cost) < cheapest:
                cheapest, begin = cost, start
        costs.append(cheapest + _OVERHEAD * batch_tokens)
        begins.append(begin)
    batches: list[list[EncodedSample]] = []
    stop = len(ordered)
    while stop:
        batches.insert(0, list(ordered[begins[stop] : stop]))
        stop = begins[stop]
    return costs[-1], batches


def collate(samples: Sequence[EncodedSample], pad_token_id: int, side: Side = "right") -> EncodedBatch:
    """Stack samples of the same input names into one batch; shorter ones get their padding on `side`."""
    lengths = [sample.n_tokens for sample in samples]
    inputs = {}
    for name in samples[0].inputs:
        tensors = [sample.inputs[name] for sample in samples]
        if _is_per_token(tensors, lengths):
            inputs[name] = _pad_tokens(tensors, max(lengths), pad_token_id if name == "input_ids" else 0, side)
        else:
            inputs[name] = _concatenate(tensors)
    labels = _pad_tokens([sample.labels for sample in samples], max(lengths), IGNORED_LABEL, side)
    return EncodedBatch(inputs, labels, tuple(sample.row for sample in samples), _image_of(samples))


def _image_of(samples: Sequence[EncodedSample]) -> tuple[int, ...] | None:
    """For each image the index of the first that equals it; None where one entry of the model's input is no image.

    Some processors give an entry for each sample: with as many images as samples, an entry may be either.
    """
    images = [image for sample in samples for image in sample.images]
    if len(images) == len(samples) and any(len(sample.images) != 1 for sample in samples):
        return None
    return tuple(map(images.index, images))


def cut_tokens(sample: EncodedSample, n_tokens: int) -> EncodedSample:
    """The sample's first tokens with all its images; every image must be among them."""
    cut = {
        name: tensor[:, :n_tokens] if _is_per_token([tensor], [sample.n_tokens]) else tensor
        for name, tensor in sample.inputs.items()
    }
    return replace(sample, inputs=cut, labels=sample.labels[:, :n_tokens])


def _is_per_token(tensors: Sequence[Tensor], lengths: Sequence[int]) -> bool:
    return all(
        not tensor.is_floating_point() and tensor.ndim >= 2 and tuple(tensor.shape[:2]) == (1, length)
        for tensor, length in zip(tensors, lengths, strict=True)
    )


def _pad_tokens(tensors: Sequence[Tensor], length: int, value: int, side: Side) -> Tensor:
    return torch.cat([_pad_to(tensor, (1, length, *tensor.shape[2:]), value, side) for tensor in tensors])


def _concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """Along the first dimension; the others (tiles of an image, their sizes) are padded with zeros to the largest."""
    largest = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    return torch.cat([_pad_to(tensor, (tensor.shape[0], *largest), 0) for tensor in tensors])


def _pad_to(tensor: Tensor, shape: Sequence[int], value: int, side: Side = "right") -> Tensor:
    if tuple(tensor.shape) == tuple(shape):
        return tensor
    missing = [want - have for have, want in zip(tensor.shape, shape, strict=True)]
    edges = [edge for amount in reversed(missing) for edge in ((0, amount) if side == "right" else (amount, 0))]
    return functional.pad(tensor, edges, value=value)

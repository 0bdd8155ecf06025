"""Encoded samples become batches: by length, within a token budget, padded on the right (on the left to generate)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from delta_attnmask.batches import IGNORED_LABEL, EncodedBatch
from delta_attnmask.reading.encoding import EncodedSample

Side = Literal["left", "right"]

_WELL_FILLED = 0.25  # of the budget; what keeps a GPU busy
_SHORT = 0.94  # of the longest sample


def plan_batches(
    samples: Sequence[EncodedSample], batch_tokens: int, image_cost: float = 0.0
) -> list[list[EncodedSample]]:
    """Group samples of similar length; a batch's longest sample times its size stays within `batch_tokens`.

    Samples with and without images never share a batch: their inputs have other keys.
    image_cost: what encoding an image token costs, in tokens of the decoder. Samples of the same images are put
        together where that saves more (a batch encodes an image once) than the padding that it brings.
    """
    plans = [_fill(ordered, batch_tokens) for ordered in (_by_length(samples), _by_images(samples))]
    return min(plans, key=lambda plan: sum(_cost(batch, image_cost) for batch in plan))


def _by_length(samples: Sequence[EncodedSample]) -> list[EncodedSample]:
    return sorted(samples, key=lambda s: (sorted(s.inputs), -s.n_tokens, s.row))


def _by_images(samples: Sequence[EncodedSample]) -> list[EncodedSample]:
    """Longest first, but those of the same images follow each other."""
    longest: dict[tuple[str, ...], int] = {}
    for sample in samples:
        longest[sample.images] = max(sample.n_tokens, longest.get(sample.images, 0))
    return sorted(samples, key=lambda s: (sorted(s.inputs), -longest[s.images], s.images, -s.n_tokens, s.row))


def _fill(ordered: Sequence[EncodedSample], batch_tokens: int) -> list[list[EncodedSample]]:
    batches: list[list[EncodedSample]] = []
    for sample in ordered:
        if not batches or _is_closed(batches[-1], sample, batch_tokens):
            batches.append([])
        batches[-1].append(sample)
    return batches


def _is_closed(batch: Sequence[EncodedSample], sample: EncodedSample, batch_tokens: int) -> bool:
    """Whether a new batch begins: other inputs, no room, or too much padding in a batch that is filled well."""
    longest = max(other.n_tokens for other in batch)
    is_full = max(longest, sample.n_tokens) * (len(batch) + 1) > batch_tokens
    is_filled = longest * len(batch) >= _WELL_FILLED * batch_tokens
    is_short = sample.n_tokens < _SHORT * longest
    return set(batch[0].inputs) != set(sample.inputs) or is_full or (is_filled and is_short)


def _cost(batch: Sequence[EncodedSample], image_cost: float) -> float:
    """Of running a batch, in tokens of the decoder, padding included."""
    images = {sample.images: sample.n_image_tokens for sample in batch}
    return max(sample.n_tokens for sample in batch) * len(batch) + image_cost * sum(images.values())


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
    return EncodedBatch(inputs, labels, tuple(sample.row for sample in samples))


def cut_tokens(sample: EncodedSample, n_tokens: int) -> EncodedSample:
    """The sample's first tokens with all its images; every image must stand among them."""
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

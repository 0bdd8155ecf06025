"""Which pixel values each image token is made of, asked of the model itself: no family's layout is written down here.

While every position of the vision tower attends to itself alone, an image token is made of its own patches and of
nothing else. So the gradient of a token's features is zero but at its own pixel values. One backward pass would tell
one token's; instead each token is weighted by a digit of its number, and the ratio to the unweighted gradient reads
that digit off at every pixel value at once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.attention.plain import match_heads
from delta_attnmask.modeling.attention.recorder import REGISTRY_LOCK
from delta_attnmask.modeling.stopping import run_up_to

_BASE, _ROUNDED_BASE = 16, 2  # of the digits: in half precision only 0 and 1 are told apart safely
_DIGIT_TOLERANCE = 0.25
_LARGE_ENOUGH = 0.3  # of the mean gradient; smaller ones are sums that all but cancel, so mostly rounding
_MOST_MIXED = 0.02  # of the pixel values may disagree, by rounding


def pixel_owners(anatomy: Anatomy, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """For each floating input the number of the image token that each value is part of, from 0 in reading order.

    inputs: what the forward takes for one sample; pictures of noise give the clearest gradients.
    -1 where a value is part of no token (cropped away by the tower) or its gradient is too small to tell.
    Costs one forward of the vision tower and a handful of backward passes.
    Raises UnsupportedModelError where tokens are mixtures of patches (resamplers, convolutions, pooling by attention).
    """
    pixels = {name: value.clone().requires_grad_() for name, value in inputs.items() if _is_pixels(value)}
    is_image = inputs["input_ids"] == anatomy.image_token_id
    states = states_before_blocks(anatomy, {**inputs, **pixels})
    features = states.reshape(-1, *states.shape[-3:])[0][is_image.to(states.device)]
    if not pixels or not features.requires_grad:
        raise _mixed(anatomy, "its image tokens have no gradient")
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(features.shape[-1], generator=generator).to(features.device)
    return _read_digits(anatomy, features.float() @ direction, pixels)


def _read_digits(anatomy: Anatomy, outputs: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
    """outputs: one number for each image token, `[token]`."""
    numbers = torch.arange(len(outputs), device=outputs.device)
    base = _BASE if all(values.dtype == torch.float32 for values in pixels.values()) else _ROUNDED_BASE
    plain = _gradients(outputs, torch.ones_like(outputs), pixels)
    is_known = {name: _is_large(gradient) for name, gradient in plain.items()}
    owners = {name: torch.zeros_like(gradient, dtype=torch.long) for name, gradient in plain.items()}
    is_mixed = {name: torch.zeros_like(gradient, dtype=torch.bool) for name, gradient in plain.items()}
    power = 1
    while power < len(outputs):
        weights = (numbers // power % base).to(outputs.dtype)
        for name, gradient in _gradients(outputs, weights, pixels).items():
            ratio = torch.where(is_known[name], gradient / plain[name], 0)
            owners[name] += ratio.round().long() * power
            is_mixed[name] |= (ratio - ratio.round()).abs() > _DIGIT_TOLERANCE
        power *= base
    _require_pure(anatomy, owners, is_mixed, is_known, len(outputs))
    return {name: owner.masked_fill(~is_known[name] | is_mixed[name], -1) for name, owner in owners.items()}


def _gradients(outputs: Tensor, weights: Tensor, pixels: dict[str, Tensor]) -> dict[str, Tensor]:
    found = torch.autograd.grad(outputs, list(pixels.values()), weights, retain_graph=True, materialize_grads=True)
    return {name: gradient.float() for name, gradient in zip(pixels, found, strict=True)}


def _is_large(gradient: Tensor) -> Tensor:
    size = gradient.abs()
    return size > _LARGE_ENOUGH * size[size > 0].mean()


def _require_pure(
    anatomy: Anatomy,
    owners: dict[str, Tensor],
    is_mixed: dict[str, Tensor],
    is_known: dict[str, Tensor],
    n_tokens: int,
) -> None:
    n_known = sum(int(known.sum()) for known in is_known.values())
    n_wrong = sum(int((is_mixed[n] | (owners[n] < 0) | (owners[n] >= n_tokens)).sum()) for n in owners)
    if n_known == 0:
        raise _mixed(anatomy, "no pixel value changes its image tokens")
    if n_wrong > _MOST_MIXED * n_known:
        raise _mixed(anatomy, f"{n_wrong / n_known:.0%} of the pixel values reach several image tokens")


def _mixed(anatomy: Anatomy, why: str) -> UnsupportedModelError:
    name = type(anatomy.model).__name__
    return UnsupportedModelError(f"{name}: which part of a picture each image token shows can't be told: {why}")


def _is_pixels(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def states_before_blocks(anatomy: Anatomy, inputs: Mapping[str, Any]) -> Tensor:
    """What the first decoder block is given while each position of the vision tower attends to itself alone.

    `[..., batch, seq, hidden]`, with gradients; the blocks themselves don't run.
    """
    with REGISTRY_LOCK, torch.enable_grad(), _attending_to_itself(anatomy):
        args, kwargs = run_up_to(anatomy.model, inputs, anatomy.blocks[0])
    states: Tensor = args[0] if args else kwargs["hidden_states"]
    return states


@contextmanager
def _attending_to_itself(anatomy: Anatomy) -> Iterator[None]:
    """Put attention of each position to itself in place of every implementation that the model uses."""

    def attend(
        _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, None]:
        if query.shape[2] != value.shape[2]:
            raise _mixed(anatomy, "it gathers patches by cross-attention")
        return match_heads(value, query.shape[1]).transpose(1, 2).contiguous(), None

    table: dict[str, Any] = AttentionInterface._global_mapping
    before = {name: table.get(name) for name in _implementations(anatomy.model)}
    table.update(dict.fromkeys(before, attend))
    try:
        yield
    finally:
        for name, function in before.items():
            if function is None:
                del table[name]
            else:
                table[name] = function


def _implementations(model: nn.Module) -> set[str]:
    """The names under which the model's parts look up their attention functions."""
    configs = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    return {str(config._attn_implementation) for config in configs}

"""The naive score: eager attention, every attention map, two full forwards with all logits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.settings import MaskSettings


@dataclass(frozen=True)
class NaiveScore:
    """loss, masked_loss, delta: [batch], nats. saliency, is_masked: [batch, seq]. n_maps: attention maps seen."""

    loss: Tensor
    masked_loss: Tensor
    delta: Tensor
    saliency: Tensor
    is_masked: Tensor
    n_maps: int


def naive_score(
    model: nn.Module, inputs: dict[str, Any], labels: Tensor, settings: MaskSettings, **how: Any
) -> NaiveScore:
    """Score a batch the plain way; `how` as in `naive_sweep`."""
    return naive_sweep(model, inputs, labels, [settings], **how)[0]


@torch.no_grad()
def naive_sweep(
    model: nn.Module,
    inputs: dict[str, Any],
    labels: Tensor,
    grid: Sequence[MaskSettings],
    *,
    layers: str = "model.language_model.layers",
    eager: str | dict[str, str] = "eager",
    image_token: int | None = None,
) -> list[NaiveScore]:
    """Score a batch the plain way under each setting: one full forward with all maps, and one more for each setting.

    layers: the path of the decoder's blocks. eager: the attention that the model is set to meanwhile.
    """
    blocks = attrgetter(layers)(model)
    is_token = inputs["attention_mask"].bool()
    scores = []
    with attention(model, eager):
        with recorded_maps(blocks, labels.shape[1]) as maps:
            loss = mean_nll(model(**inputs, use_cache=False).logits, labels)
        stacked = torch.stack([m.float() for m in maps])
        for settings in grid:
            saliency = received(stacked, counted_queries(is_token, labels, settings))
            is_eligible = eligible(inputs["input_ids"], is_token, labels, settings, image_token)
            is_masked = chosen(saliency, is_eligible, settings.fraction)
            with replaced_states(blocks[settings.block], is_masked, is_token, settings.replacement):
                masked_loss = mean_nll(model(**inputs, use_cache=False).logits, labels)
            scores.append(NaiveScore(loss, masked_loss, masked_loss - loss, saliency, is_masked, len(maps)))
    return scores


@contextmanager
def attention(model: nn.Module, implementation: str | dict[str, str]) -> Iterator[None]:
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    before = [(config, config._attn_implementation) for config in configs if hasattr(config, "_attn_implementation")]
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        for config, name in before:
            config._attn_implementation = name


@contextmanager
def recorded_maps(blocks: nn.ModuleList, n_tokens: int) -> Iterator[list[Tensor]]:
    """The [batch, head, query, key] maps that modules in the blocks return, each once."""
    maps: list[Tensor] = []

    def record(module: nn.Module, args: Any, output: Any) -> None:
        for item in output if isinstance(output, tuple) else ():
            is_map = isinstance(item, Tensor) and item.ndim == 4 and item.shape[-2:] == (n_tokens, n_tokens)
            if is_map and not any(item is known for known in maps):
                maps.append(item)

    hooks = [module.register_forward_hook(record) for module in blocks.modules()]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def counted_queries(is_token: Tensor, labels: Tensor, settings: MaskSettings) -> Tensor:
    if settings.queries == "all":
        return is_token
    predicts = torch.zeros_like(is_token)
    predicts[:, :-1] = labels[:, 1:] != -100
    return predicts


def received(maps: Tensor, is_counted: Tensor) -> Tensor:
    """maps: [layer, batch, head, query, key]."""
    return torch.einsum("lbhqk,bq->bk", maps, is_counted.float()) / (maps.shape[0] * maps.shape[2])


def eligible(
    input_ids: Tensor, is_token: Tensor, labels: Tensor, settings: MaskSettings, image_token: int | None
) -> Tensor:
    if settings.tokens == "image":
        return is_token & (input_ids == image_token)
    return is_token & (labels == -100) if settings.tokens == "prompt" else is_token


def chosen(saliency: Tensor, is_eligible: Tensor, fraction: float) -> Tensor:
    is_masked = torch.zeros_like(is_eligible)
    for row in range(len(saliency)):
        positions = is_eligible[row].nonzero().flatten().tolist()
        n_masked = max(1, int(fraction * len(positions) + 0.5)) if fraction else 0
        ranked = sorted(positions, key=lambda position: (-saliency[row, position].item(), position))
        is_masked[row, ranked[:n_masked]] = True
    return is_masked


@contextmanager
def replaced_states(block: nn.Module, is_masked: Tensor, is_token: Tensor, replacement: str) -> Iterator[None]:
    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        if replacement == "zero":
            new = torch.zeros_like(states)
        else:
            weights = is_token.to(states.dtype)[..., None]
            new = (states * weights).sum(-2, keepdim=True) / weights.sum(-2, keepdim=True)
        states = torch.where(is_masked[..., None], new, states)
        return (states, *output[1:]) if isinstance(output, tuple) else states

    hook = block.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def mean_nll(logits: Tensor, labels: Tensor) -> Tensor:
    log_probabilities = logits[:, :-1].float().log_softmax(-1)
    targets = labels[:, 1:]
    is_answer = targets != -100
    nll = -log_probabilities.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return (nll * is_answer).sum(-1) / is_answer.sum(-1)

"""Attention of vision towers that lay all images behind each other in one sequence: one call for all of them.

transformers calls "sdpa" once for each image and block instead, which leaves a GPU waiting.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from delta_attnmask.modeling.attention.fused import takes_flash

# With "flash" in its name, transformers hands over all images at once and says where each begins.
PACKED = "delta_attnmask_packed_flash"


@contextmanager
def packed_vision(model: nn.Module, decoder_config: Any) -> Iterator[None]:
    """Let the attention modules that are given the images' boundaries, and use "sdpa", attend to all at once."""
    packed = [config for config in _configs(model) if config is not decoder_config and _uses_sdpa(config)]
    table = AttentionInterface._global_mapping
    table[PACKED] = packed_attention
    try:
        for config in packed:
            config._attn_implementation = PACKED
        yield
    finally:
        for config in packed:
            config._attn_implementation = "sdpa"
        table.pop(PACKED, None)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers; each image attends to itself.

    query, key, value: `[1, head, seq, dim]`. cu_seq_lens_q: where each image begins, and the end, `[image + 1]`.
    Returns `[1, seq, head, dim]`.
    """
    if cu_seq_lens_q is None:
        output = functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        return output.transpose(1, 2).contiguous(), None
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
    if query.device.type == "cuda" and takes_flash(query) and query.shape[-1] % 8 == 0 and max_length_q is not None:
        return _flash(query, key, value, cu_seq_lens_q.int(), int(max_length_q), scaling)[None], None
    lengths = cu_seq_lens_q.diff().tolist()
    return _by_image(query, key, value, lengths, scaling)[None], None


def _flash(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scale: float | None) -> Tensor:
    kernel = torch.ops.aten._flash_attention_forward
    output: Tensor = kernel(
        query, key, value, starts, starts, longest, longest, 0.0, False, return_debug_mask=False, scale=scale
    )[0]
    return output


def _by_image(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float | None) -> Tensor:
    """`[seq, head, dim]`; runs of images of one length share a call."""
    outputs = []
    start = 0
    for length, run in itertools.groupby(lengths):
        n_images = len(list(run))
        part = slice(start, start + length * n_images)
        start = part.stop
        shape = (n_images, length, *query.shape[1:])
        q, k, v = (states[part].reshape(shape).transpose(1, 2) for states in (query, key, value))
        output = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)


def _configs(model: nn.Module) -> list[Any]:
    """The configurations of modules that are told where each image begins."""
    modules = [module for module in model.modules() if _takes_boundaries(type(module).forward)]
    configs = (getattr(module, "config", None) for module in modules)
    return list({id(config): config for config in configs if config is not None}.values())


@functools.cache
def _takes_boundaries(forward: Callable[..., Any]) -> bool:
    return "cu_seqlens" in inspect.signature(forward).parameters


def _uses_sdpa(config: Any) -> bool:
    return bool(config._attn_implementation == "sdpa")

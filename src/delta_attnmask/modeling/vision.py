"""The vision tower, once for all images of a batch: one attention call for all of them, equal images encoded once, and
patches embedded by a matrix product.

transformers calls "sdpa" once for each image and block where a tower lays all images one after the other in one
sequence, which leaves a GPU waiting.
"""

import copy
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface

from delta_attnmask.modeling.anatomy import Anatomy, owner_of
from delta_attnmask.modeling.kernels import aligned, takes_flash
from delta_attnmask.modeling.running import replaced_forward

# With "flash" in its name, transformers hands over all images at once and says where each begins.
PACKED = "delta_attnmask_packed_flash"

# Largest relative difference of image features that another batch size may cause.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_ENCODING = "get_image_features"

_can_share: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@contextmanager
def packed_vision(anatomy: Anatomy) -> Iterator[None]:
    """Let the attention modules that are given the images' boundaries, and use "sdpa", attend to all at once."""
    takers = (module for module in anatomy.modules if _takes_boundaries(type(module).forward))
    configs = {id(config): config for module in takers if (config := getattr(module, "config", None)) is not None}
    configs.pop(id(anatomy.decoder_config), None)
    packed = [config for config in configs.values() if config._attn_implementation == "sdpa"]
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
    if query.device.type == "cuda" and takes_flash(query) and max_length_q is not None:
        starts, longest, flash = cu_seq_lens_q.int(), int(max_length_q), torch.ops.aten._flash_attention_forward
        head_dim, states = query.shape[-1], (aligned(query), aligned(key), aligned(value))
        options = {"return_debug_mask": False, "scale": head_dim**-0.5 if scaling is None else scaling}
        output = flash(*states, starts, starts, longest, longest, 0.0, False, **options)[0]
        return output[..., :head_dim][None], None
    lengths = cu_seq_lens_q.diff().tolist()
    return _by_image(query, key, value, lengths, scaling)[None], None


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


@functools.cache
def _takes_boundaries(forward: Callable[..., Any]) -> bool:
    return "cu_seqlens" in inspect.signature(forward).parameters


@contextmanager
def linear_patches(anatomy: Anatomy) -> Iterator[None]:
    """Compute 3D convolutions that see one patch at a time (Qwen-VL's and GLM-V's embeddings) as the matrix product
    that they are: in bfloat16 cuDNN is slow at them, and torch 2.9.0 goes without it.
    """
    with ExitStack() as stack:
        for module in anatomy.modules:
            if isinstance(module, nn.Conv3d) and _sees_patches(module) and "forward" not in vars(module):
                stack.enter_context(replaced_forward(module, functools.partial(_embed_patches, module)))
        yield


def _sees_patches(convolution: nn.Conv3d) -> bool:
    is_tiled = convolution.stride == convolution.kernel_size and not any(convolution.padding)
    return is_tiled and convolution.groups == 1 and set(convolution.dilation) == {1}


def _embed_patches(convolution: nn.Conv3d, patches: Tensor) -> Tensor:
    """What the convolution gives for patches `[patch, channel, time, height, width]`, `[patch, hidden, 1, 1, 1]`."""
    if patches.shape[2:] != convolution.kernel_size:
        return type(convolution).forward(convolution, patches)
    product = functional.linear(patches.flatten(1), convolution.weight.flatten(1), convolution.bias)
    return product[..., None, None, None]


@contextmanager
def shared_images(model: nn.Module, image_of: Sequence[int] | None) -> Iterator[None]:
    """Encode equal images of a batch once, where the model has `get_image_features` with one result an image.

    image_of: for each image, in the batch's order, the index of the first that equals it; None shares nothing.
    The first time, a model's features are computed both ways; one whose features differ never shares.
    """
    is_shared = image_of is not None and len(set(image_of)) < len(image_of)
    owner = owner_of(model, _ENCODING) if is_shared else None
    if owner is None or image_of is None or _ENCODING in vars(owner):
        yield
        return
    setattr(owner, _ENCODING, _sharing(owner, getattr(owner, _ENCODING), image_of))
    try:
        yield
    finally:
        delattr(owner, _ENCODING)


def image_cost(anatomy: Anatomy) -> float:
    """What encoding an image token costs, in tokens of the decoder, by their weights; 0 where none is shared."""
    if owner_of(anatomy.model, _ENCODING) is None:
        return 0.0
    head = anatomy.model.get_output_embeddings().weight  # type: ignore[operator]
    language = {id(weight) for weight in (*anatomy.decoder.parameters(), head)}
    n_vision = sum(weight.numel() for weight in anatomy.model.parameters() if id(weight) not in language)
    return n_vision / sum(weight.numel() for weight in anatomy.blocks.parameters())


def _sharing(owner: nn.Module, original: Callable[..., Any], image_of: Sequence[int]) -> Callable[..., Any]:
    signature = inspect.signature(original)
    kept = sorted(set(image_of))
    places = [kept.index(image) for image in image_of]  # of each image among those that are encoded

    def encode(*args: Any, **kwargs: Any) -> Any:
        distinct = _distinct(signature.bind(*args, **kwargs).arguments, image_of, kept)
        if distinct is None or _can_share.get(owner) is False:
            return original(*args, **kwargs)
        shared = _expand(original(**distinct), places)
        if shared is not None and owner in _can_share:
            return shared
        whole = original(*args, **kwargs)
        _can_share[owner] = shared is not None and _agree(shared, whole)
        return whole

    return encode


def _distinct(arguments: dict[str, Any], image_of: Sequence[int], kept: Sequence[int]) -> dict[str, Any] | None:
    """The call's arguments for the images in `kept` alone; None where it isn't one that is understood.

    Its every tensor must have one entry an image (Qwen-VL's pixels: some rows an image), the same where one is shared.
    """
    flat = {**arguments, **arguments.get("kwargs", {})}
    flat.pop("kwargs", None)
    pixels, grid = flat.get("pixel_values"), flat.get("image_grid_thw")
    if not isinstance(pixels, Tensor) or pixels.ndim < 2:
        return None
    sizes: list[int] = [1] * len(pixels) if grid is None else grid.prod(-1).tolist()
    others = {name: value for name, value in flat.items() if name != "pixel_values" and isinstance(value, Tensor)}
    if len(sizes) != len(image_of) or sum(sizes) != len(pixels):
        return None
    if any(value.ndim == 0 or len(value) != len(sizes) for value in others.values()):
        return None
    if any(sizes[image] != sizes[first] for image, first in enumerate(image_of)):
        return None
    index = torch.tensor(kept)
    parts = torch.split(pixels, sizes)
    cut = {name: value[index.to(value.device)] for name, value in others.items()}
    return {**flat, **cut, "pixel_values": torch.cat([parts[image] for image in kept])}


def _expand(output: Any, places: list[int]) -> Any:
    """The output for all images, given the one for the distinct images; None where it isn't one entry an image."""
    features: Any = getattr(output, "pooler_output", output)
    if not isinstance(features, Tensor | list | tuple) or len(features) != max(places) + 1:
        return None
    if features is output:
        return _pick(features, places)
    changed = copy.copy(output)
    changed["pooler_output"] = _pick(features, places)
    if layers := getattr(output, "deepstack_features", None):
        sizes = [len(part) for part in features]
        # Before transformers 5.23 a layer is one tensor of all images, one after the other.
        changed["deepstack_features"] = [
            torch.cat(_pick(torch.split(layer, sizes), places)) if isinstance(layer, Tensor) else _pick(layer, places)
            for layer in layers
        ]
    return changed


def _pick(features: Any, places: list[int]) -> Any:
    picked = [features[place] for place in places]
    return torch.stack(picked) if isinstance(features, Tensor) else type(features)(picked)


def _agree(output: Any, other: Any) -> bool:
    """Whether two outputs hold the same features but for rounding."""
    found, expected = _tensors(output), _tensors(other)
    return len(found) == len(expected) and all(
        one.shape == two.shape
        and (one - two).float().abs().max() <= two.float().abs().max() * _TOLERANCE.get(two.dtype, 1e-4)
        for one, two in zip(found, expected, strict=True)
    )


def _tensors(output: Any) -> list[Tensor]:
    parts = (getattr(output, "pooler_output", output), getattr(output, "deepstack_features", None))
    return [leaf for leaf in tree_leaves(parts) if isinstance(leaf, Tensor)]

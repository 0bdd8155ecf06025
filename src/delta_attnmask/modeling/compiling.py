"""Compile the repeated blocks of a model, and nothing that scoring hooks into or replaces."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from delta_attnmask.modeling.anatomy import examine


def compile_blocks(model: nn.Module, backend: str = "inductor") -> None:
    """Compile the forward of each decoder block but the last, and of each block of the vision tower.

    Modules keep their identity; hooks and replaced forwards go on working, since only `forward` changes.
    The last decoder block stays as it is: scoring runs a part of it on fewer rows.
    backend: of torch.compile. Costs some seconds at the first batch, and again where the number of dimensions changes.
    """
    anatomy = examine(model)
    for block in [*list(anatomy.blocks)[:-1], *vision_blocks(model, anatomy.decoder)]:
        block.forward = torch.compile(_own_forward(block), dynamic=True, backend=backend)


def vision_blocks(model: nn.Module, decoder: nn.Module) -> Iterator[nn.Module]:
    """Blocks of one kind in a list outside the decoder; of nested lists the outer one."""
    taken = set(decoder.modules())
    for module in model.modules():
        is_stack = isinstance(module, nn.ModuleList) and len({type(part) for part in module}) == 1
        if is_stack and module not in taken:
            taken.update(module.modules())
            yield from module.children()


def _own_forward(block: nn.Module) -> Callable[..., Any]:
    """The forward without the wrappers that all classes of blocks share, since torch.compile keeps a few
    versions of each function, not of each class; one that is patched already (accelerate) as it is."""
    if "forward" in vars(block):
        return block.forward
    function = inspect.unwrap(type(block).forward)
    return function.__get__(block)  # type: ignore[no-any-return]

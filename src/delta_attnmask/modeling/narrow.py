"""The last block's feed-forward part for the positions that are read, and no others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Positions = tuple[Tensor, Tensor]  # sample and position of each row


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Put `forward` in the place of the module's own (which may be patched already, as accelerate does)."""
    missing = object()
    before = module.__dict__.get("forward", missing)
    module.forward = forward
    try:
        yield
    finally:
        if before is missing:
            del module.forward
        else:
            module.forward = before


@contextmanager
def narrowed(module: nn.Module, positions: Positions, shape: tuple[int, int]) -> Iterator[None]:
    """Run `module`, which treats each position alone, on `positions` only; the others get zeros.

    shape: batch and seq. Calls of any other form than one tensor `[batch, seq, hidden]` to another are left as they
    are.
    """
    whole = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) != 1 or not isinstance(args[0], Tensor) or args[0].shape[:-1] != shape:
            return whole(*args, **kwargs)
        states: Tensor = args[0]
        places = (positions[0].to(states.device), positions[1].to(states.device))
        part = whole(states[places][None])
        if not isinstance(part, Tensor) or part.ndim != 3:
            return whole(states)
        output = part.new_zeros(*states.shape[:2], part.shape[-1])
        output[places] = part[0]
        return output

    with replaced_forward(module, forward):
        yield

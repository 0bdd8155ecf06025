"""What goes into and comes out of decoder blocks, in whatever form: a tensor, a tuple, an output object."""

import copy
from typing import Any

import torch
from torch import Tensor


def given_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a block is called with."""
    states: Tensor = args[0] if args else kwargs["hidden_states"]
    return states


def are_same(states: Tensor, others: Tensor | None) -> bool:
    return states is others or (others is not None and torch.equal(states.to(others.device), others))


def first_states(output: Any) -> Tensor:
    """The hidden states in the output of a block, a decoder or a backbone."""
    states: Tensor = output if isinstance(output, Tensor) else output[0]
    return states


def with_states(output: Any, states: Tensor | None) -> Any:
    """A copy of `output` with other hidden states."""
    if output is None or isinstance(output, Tensor):
        return states
    if isinstance(output, tuple):
        return (states, *output[1:])
    changed = copy.copy(output)
    key = next(name for name, value in output.items() if value is not None)
    if states is not None:
        changed[key] = states
    return changed

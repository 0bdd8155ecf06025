"""How a model and its parts are run: what goes in and comes out, and what holds meanwhile and is put back after."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy, owner_of

Call = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments

_NOTED = "rope_deltas"  # Qwen-VL's and GLM-V's forwards keep how far the last batch's positions differ from its tokens'
_NUMBERING = "get_rope_index"


def given_states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a block is called with."""
    states: Tensor = args[0] if args else kwargs["hidden_states"]
    return states


def are_same(states: Tensor, others: Tensor | None) -> bool:
    return states is others or (others is not None and torch.equal(states.to(others.device), others))


def first_states(output: Any) -> Tensor:
    """The hidden states in the output of a block, a decoder or a backbone: a tensor, a tuple or an output object."""
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


class Reached(Exception):
    """Ends a forward where it is to go no further. call: what it would have called there."""

    def __init__(self, call: Any):
        super().__init__()
        self.call = call


def run_up_to(model: nn.Module, inputs: Mapping[str, Any], module: nn.Module) -> Call:
    """Run the model's forward until it calls `module`, which doesn't run; what `module` is given.

    Raises UnsupportedModelError where the forward never calls it.
    """

    def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise Reached((args, kwargs))

    hook = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**inputs)
    except Reached as reached:
        call: Call = reached.call
        return call
    finally:
        hook.remove()
    raise UnsupportedModelError(f"{type(model).__name__}: its forward never calls its {type(module).__name__}")


@contextmanager
def evaluating(anatomy: Anatomy) -> Iterator[None]:
    """Evaluation mode without a cache of keys; each module's own mode, and what it noted for generating, afterwards."""
    training = [module for module in anatomy.modules if module.training]
    noted = [(module, vars(module)[_NOTED]) for module in anatomy.modules if _NOTED in vars(module)]
    config, use_cache = anatomy.decoder_config, getattr(anatomy.decoder_config, "use_cache", None)
    if training:
        anatomy.model.eval()
    try:
        if use_cache:  # many models that take use_cache don't name it in their forward
            config.use_cache = False
        yield
    finally:
        if use_cache:
            config.use_cache = use_cache
        for module in training:
            module.training = True
        for module, value in noted:
            setattr(module, _NOTED, value)


@contextmanager
def readable_implementation(anatomy: Anatomy) -> Iterator[str]:
    """The decoder's attention implementation; other than "sdpa" and "eager" is switched to "sdpa" meanwhile."""
    name = anatomy.decoder_config._attn_implementation
    if name in ("sdpa", "eager"):
        yield name
        return
    configs: dict[int, Any] = {id(m.config): m.config for m in anatomy.modules if hasattr(m, "config")}
    before = [(config, config._attn_implementation) for config in configs.values()]
    anatomy.model.set_attn_implementation("sdpa")  # type: ignore[operator]
    try:
        yield "sdpa"
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation


def no_cache(model: nn.Module) -> dict[str, bool]:
    """The argument that keeps a forward from making a cache, where it takes one."""
    parameters = inspect.signature(model.forward).parameters
    return {"use_cache": False} if "use_cache" in parameters else {}


def with_positions(model: nn.Module, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs with the `position_ids` that the model would make of them; as they are for most models.

    Models that number image tokens on several axes (Qwen-VL, GLM-V) make them sample by sample with many small
    operations, each of which a GPU would wait for: so they are made before the batch goes there.
    """
    owner: Any = owner_of(model, _NUMBERING)
    if owner is None or "position_ids" in inputs:
        return inputs
    parameters = inspect.signature(owner.get_rope_index).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    has_images = any(name.endswith("_grid_thw") for name in inputs)
    if not has_images or any(name not in inputs for name in needed):
        return inputs  # text alone is numbered by the decoder itself
    known = {p.name: inputs[p.name] for p in parameters if p.name in inputs}
    positions, _ = owner.get_rope_index(**known)
    return {**inputs, "position_ids": positions}

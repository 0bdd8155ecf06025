"""A forward that ends where its rest is needed no further."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from delta_attnmask.errors import UnsupportedModelError

Call = tuple[tuple[Any, ...], dict[str, Any]]


class _Reached(Exception):
    def __init__(self, call: Call):
        super().__init__()
        self.call = call


def run_up_to(model: nn.Module, inputs: Mapping[str, Any], module: nn.Module) -> Call:
    """Run the model's forward until it calls `module`, which doesn't run; what `module` is given.

    Raises UnsupportedModelError where the forward never calls it.
    """

    def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Reached((args, kwargs))

    hook = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**inputs)
    except _Reached as reached:
        return reached.call
    finally:
        hook.remove()
    raise UnsupportedModelError(f"{type(model).__name__}: its forward never calls its {type(module).__name__}")

"""What holds while a model runs, and is put back afterwards: evaluation mode, no cache, readable attention."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from delta_attnmask.modeling.anatomy import Anatomy

_NOTED = "rope_deltas"  # Qwen-VL's and GLM-V's forwards keep how far the last batch's positions lag behind its tokens


@contextmanager
def evaluating(anatomy: Anatomy) -> Iterator[None]:
    """Evaluation mode without a cache of keys; each module's own mode, and what it noted for generating, afterwards."""
    modules = list(anatomy.model.modules())
    training = [module for module in modules if module.training]
    noted = [(module, vars(module)[_NOTED]) for module in modules if _NOTED in vars(module)]
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
    configs: dict[int, Any] = {id(m.config): m.config for m in anatomy.model.modules() if hasattr(m, "config")}
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

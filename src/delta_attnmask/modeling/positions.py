"""Positions of models that number image tokens on several axes (Qwen-VL, GLM-V), made before the batch goes to the GPU.

transformers makes them sample by sample with many small operations, each of which a GPU would wait for.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

_METHOD = "get_rope_index"


def with_positions(model: nn.Module, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inputs with the `position_ids` that the model would make of them; as they are for other models."""
    owner: Any = next((module for module in model.modules() if hasattr(module, _METHOD)), None)
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

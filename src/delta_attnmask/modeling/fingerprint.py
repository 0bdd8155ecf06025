"""Which weights a loaded model has, told from a small part of them."""

import json
from hashlib import sha256
from typing import Any

import torch
from torch import nn

_VALUES_PER_TENSOR = 64


def model_fingerprint(model: nn.Module) -> str:
    """Hex SHA-256 over the configuration and 64 evenly spaced values of every parameter and buffer.

    Reads a few kilobytes however large the model is. Any training step changes nearly every parameter, so two
    checkpoints of one model differ; so does the same checkpoint in another precision.
    """
    config: Any = model.config
    digest = sha256(json.dumps(_portable(config.to_dict()), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_some_values(tensor.detach()).tobytes())
    return digest.hexdigest()


def _some_values(tensor: torch.Tensor) -> Any:
    flat = tensor.reshape(-1)
    step = max(1, flat.numel() // _VALUES_PER_TENSOR)
    return flat[::step][:_VALUES_PER_TENSOR].cpu().double().numpy()


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Without what says where the model lies or which version wrote it."""
    return {name: value for name, value in config.items() if name not in {"_name_or_path", "transformers_version"}}

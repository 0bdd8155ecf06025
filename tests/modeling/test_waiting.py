"""What makes a GPU wait (a number read back, positions counted) happens a few times a batch, not in every block."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from delta_attnmask import MaskSettings, SettingsError, score_batch
from delta_attnmask.settings import AttentionBackend
from tests.families import FAMILIES

BACKENDS: list[AttentionBackend] = ["plain", "auto"]
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim"}


class Waits(TorchDispatchMode):
    """Counts the operations after which the host knows a number of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for index in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if name in WAITING or by_mask:
            self.counted[name] += 1
        return function(*args, **(kwargs or {}))


def waits(n_blocks: int) -> Counter[str]:
    family = FAMILIES["Llama"]
    config: Any = family.config
    model = type(family)(**{**vars(family), "config": {**config, "num_hidden_layers": n_blocks}}).build()
    inputs, labels = family.inputs()
    score_batch(model, inputs, labels, MaskSettings.paper(), attention="plain")  # the self-check
    with Waits() as counting:
        score_batch(model, inputs, labels, MaskSettings.paper(), attention="plain")
    return counting.counted


def test_no_block_waits() -> None:
    few, many = waits(3), waits(7)
    assert few == many
    assert few.total() < 25


def test_backends_score_alike() -> None:
    family = FAMILIES["Gemma 3"]
    model = family.build()
    inputs, labels = family.inputs()
    plain, auto = (score_batch(model, inputs, labels, MaskSettings.paper(), attention=kind) for kind in BACKENDS)
    assert (auto.delta - plain.delta).abs().max() < 1e-5
    assert (auto.saliency - plain.saliency).abs().max() < 1e-5
    with pytest.raises(SettingsError, match="needs an NVIDIA GPU"):
        score_batch(model, inputs, labels, MaskSettings.paper(), attention="triton")

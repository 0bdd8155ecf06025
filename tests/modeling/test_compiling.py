"""Compiled blocks: same scores, and scoring's hooks and replaced forwards still work."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from delta_attnmask import MaskSettings, score_batch
from delta_attnmask.modeling.load import LoadedModel, compile_blocks, is_worth_compiling, vision_blocks
from tests.families import FAMILIES

LARGEST = 1e-5


def test_same_scores_and_no_compiling_again() -> None:
    family = FAMILIES["Qwen2-VL"]
    model = family.build()
    inputs, labels = family.inputs()
    plainly = [score_batch(model, inputs, labels, MaskSettings(block=block)) for block in (-2, 0)]
    restore = compile_blocks(
        model, backend="eager"
    )  # traced, hooked and guarded as ever, but not lowered to machine code
    counters.clear()
    n_graphs = []
    for _ in range(2):
        for block, expected in zip((-2, 0), plainly, strict=True):
            score = score_batch(model, inputs, labels, MaskSettings(block=block))
            assert (score.loss - expected.loss).abs().max() < LARGEST
            assert (score.delta - expected.delta).abs().max() < LARGEST
        n_graphs.append(counters["stats"]["unique_graphs"])
    assert n_graphs[0] > 0
    assert n_graphs[0] == n_graphs[1]
    restore()
    assert not [name for name, module in model.named_modules() if "forward" in vars(module)]


def test_vision_blocks_are_those_outside_the_decoder() -> None:
    model = FAMILIES["Qwen2-VL"].build()
    found = list(vision_blocks(model, model.model.language_model))
    assert [type(block).__name__ for block in found] == ["Qwen2VLVisionBlock"] * 2


class OnGpu(LoadedModel):
    """A model that is said to be on a GPU of its own number, since Triton is tried once for each."""

    device = torch.device("cuda:23")


def test_blocks_are_compiled_where_there_are_rows_and_a_compiler_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    triton: Any = ModuleType("triton_received")
    triton.launch_once = lambda *wanted: None
    monkeypatch.setitem(sys.modules, "delta_attnmask.modeling.triton_received", triton)
    model = FAMILIES["Llama"].build()
    loaded = OnGpu("llama", model, None)
    assert is_worth_compiling(loaded, 5000)
    assert not is_worth_compiling(loaded, 4999)
    assert not is_worth_compiling(LoadedModel("llama", model, None), 10**9)
    restore = compile_blocks(model, backend="eager")
    assert not is_worth_compiling(loaded, 5000)
    restore()
    assert is_worth_compiling(loaded, 5000)
    triton.launch_once = lambda *wanted: 1 / 0
    OnGpu.device = torch.device("cuda:24")
    assert not is_worth_compiling(loaded, 5000)

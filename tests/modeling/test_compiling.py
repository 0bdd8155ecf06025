"""Compiled blocks: same scores, and scoring's hooks and replaced forwards still work."""

from torch._dynamo.utils import counters

from delta_attnmask import MaskSettings, score_batch
from delta_attnmask.modeling.load import compile_blocks, vision_blocks
from tests.families import FAMILIES

LARGEST = 1e-5


def test_same_scores_and_no_compiling_again() -> None:
    family = FAMILIES["Qwen2-VL"]
    model = family.build()
    inputs, labels = family.inputs()
    plainly = [score_batch(model, inputs, labels, MaskSettings(block=block)) for block in (-2, 0)]
    compile_blocks(model, backend="eager")  # traced, hooked and guarded as ever, but not lowered to machine code
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


def test_vision_blocks_are_those_outside_the_decoder() -> None:
    model = FAMILIES["Qwen2-VL"].build()
    found = list(vision_blocks(model, model.model.language_model))
    assert [type(block).__name__ for block in found] == ["Qwen2VLVisionBlock"] * 2

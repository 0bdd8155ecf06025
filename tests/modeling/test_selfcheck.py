"""The self-check lets right models through in every precision, and wrong ones in none."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from delta_attnmask import MaskSettings, UnsupportedModelError, score_batch
from delta_attnmask.modeling import selfcheck
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.rounding import Rounding, changed_outputs
from delta_attnmask.modeling.selfcheck import SelfCheck, check_model, probe_labels, self_check
from tests.families import FAMILIES
from tests.families.family import IMAGE

HALVES = [torch.bfloat16, torch.float16]
FARTHEST = {torch.bfloat16: 0.1, torch.float16: 0.02}  # from float32, of a sample's loss in nats

Batch = tuple[dict[str, Any], Tensor]


def build(name: str, dtype: torch.dtype) -> tuple[Any, Batch]:
    inputs, labels = FAMILIES[name].inputs()
    cast = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    return FAMILIES[name].build().to(dtype), (cast, labels)


class Changed(nn.Module):
    """A block whose output is changed."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor, Tensor], Tensor]):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.change(self.inner(states, *args, **kwargs), states)


def leak(output: Tensor, states: Tensor) -> Tensor:
    return output + 0.05 * states.roll(1, dims=1)


def be_noisy(output: Tensor, _states: Tensor) -> Tensor:
    """A twentieth of the largest state: nothing beside that one, much beside the others."""
    return output + 0.05 * output.abs().max() * torch.randn_like(output)


def check(model: nn.Module, batch: Batch) -> SelfCheck:
    return check_model(examine(model), *batch)


def test_threads_that_share_a_fresh_model_check_it_once_and_score_it_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build("Llama", torch.float32)
    expected = score_batch(FAMILIES["Llama"].build(), *batch, MaskSettings.paper()).loss
    score_batch(model, *batch, MaskSettings.paper(), attention="plain")
    checks: list[str] = []
    moved = threading.Event()

    def slowly(*given: Any) -> SelfCheck:
        """A check that adds noise for as long as another thread may need to score."""
        checks.append(given[-1])
        with changed_outputs(examine(model).blocks, lambda states: states + 1):
            moved.set()
            time.sleep(0.3)
        return check_model(*given)

    monkeypatch.setattr(selfcheck, "check_model", slowly)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(score_batch, model, *batch)
        assert moved.wait(10)
        others = [pool.submit(score_batch, model, *batch, attention=backend) for backend in ("auto", "plain")]
        losses = [future.result().loss for future in (first, *others)]
    assert checks == ["auto"]
    assert all(torch.allclose(loss, expected, atol=1e-5) for loss in losses)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["Llama", "LLaVA", "Qwen2-VL", "gpt-oss", "DeepSeek-V3"])
def test_half_precision_is_let_through_and_spares_what_full_precision_spares(name: str, dtype: torch.dtype) -> None:
    found, full = check(*build(name, dtype)), check(*build(name, torch.float32))
    assert found.replay_error == 0
    assert found.runs_on_rows == full.runs_on_rows


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["LLaVA", "Qwen2-VL"])
def test_half_precision_scores_are_near_those_of_full_precision(name: str, dtype: torch.dtype) -> None:
    (model, batch), (full_model, full_batch) = build(name, dtype), build(name, torch.float32)
    half = score_batch(model, *batch, MaskSettings.paper())
    full = score_batch(full_model, *full_batch, MaskSettings.paper())
    assert half.loss.dtype == half.masked_loss.dtype == half.saliency.dtype == torch.float32
    assert (half.loss - full.loss).abs().max() < FARTHEST[dtype]
    assert (half.saliency - full.saliency).abs().max() < FARTHEST[dtype] * full.saliency.max()


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@pytest.mark.parametrize("name", ["Llama", "LLaVA", "OPT"])
def test_a_last_block_into_which_a_neighbour_leaks_is_run_whole(name: str, dtype: torch.dtype) -> None:
    model, batch = build(name, dtype)
    assert check(model, batch).runs_on_rows
    blocks = examine(model).blocks
    blocks[-1] = Changed(blocks[-1], leak)
    assert not check(model, batch).runs_on_rows


@pytest.mark.parametrize("name", ["Gemma 4", "Falcon-H1"])
def test_blocks_that_full_precision_runs_whole_are_run_whole_in_half_precision(name: str) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        assert not check(*build(name, dtype)).runs_on_rows


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_a_model_whose_replay_differs_is_refused(dtype: torch.dtype) -> None:
    model, batch = build("Llama", dtype)
    blocks = examine(model).blocks
    blocks[-1] = Changed(blocks[-1], be_noisy)
    with pytest.raises(UnsupportedModelError, match="running the tail of its decoder again gives other losses"):
        check(model, batch)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
def test_a_model_whose_attention_is_read_wrongly_is_refused(dtype: torch.dtype) -> None:
    """One whose own attention function takes an option that nobody else knows."""
    model, batch = build("Llama", dtype)
    AttentionInterface.register("sdpa", sharper)
    try:
        with pytest.raises(UnsupportedModelError, match="reading its attention changes its loss"):
            check(model, batch)
    finally:
        AttentionInterface.register("sdpa", sdpa_attention_forward)


def sharper(*args: Any, scaling: float, **kwargs: Any) -> tuple[Tensor, None]:
    return sdpa_attention_forward(*args, scaling=scaling * 1.2, **kwargs)


def test_rounding_moves_the_losses_less_in_a_finer_precision() -> None:
    spreads = []
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        model, (inputs, labels) = build("Llama", dtype)
        rounding = Rounding(examine(model), inputs, labels)
        assert rounding.unit == torch.finfo(dtype).eps
        assert torch.equal(Rounding(examine(model), inputs, labels).losses, rounding.losses)
        spreads.append(max(size for size in 2.0 ** torch.arange(-20, 2) if rounding.allows(size.expand(50), 1.0)))
    assert spreads[0] > spreads[1] > spreads[2]


def test_the_tokens_that_are_compared_are_text_and_no_neighbours() -> None:
    inputs, labels = FAMILIES["LLaVA"].inputs("left")
    probes = probe_labels(examine(FAMILIES["LLaVA"].build()), inputs, labels)
    is_probe = probes != -100
    assert torch.equal(probes[is_probe], inputs["input_ids"][is_probe])
    assert not (is_probe[:, 1:] & is_probe[:, :-1]).any()
    assert not (is_probe & (inputs["input_ids"] == IMAGE)).any()
    assert not (is_probe & (inputs["attention_mask"] == 0)).any()
    assert (is_probe.sum(-1) > (labels != -100).sum(-1) / 2).all()
    long = torch.arange(16, 116).repeat(1, 10)
    assert (probe_labels(examine(FAMILIES["Llama"].build()), {"input_ids": long}, long) != -100).sum() <= 70


@pytest.mark.parametrize("name", ["LLaVA", "Gemma 2"])
def test_the_untouched_model_makes_logits_only_where_they_are_compared(name: str) -> None:
    model, (inputs, labels) = build(name, torch.float32)
    with torch.no_grad():
        logits = model(**inputs).logits
    is_compared = labels[:, 1:] != -100
    expected = nn.functional.cross_entropy(logits[:, :-1][is_compared], labels[:, 1:][is_compared], reduction="none")
    n_positions: list[int] = []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _module, _args, output: n_positions.append(output[..., 0].numel()))
    found = Rounding(examine(model), inputs, labels).losses
    handle.remove()
    assert torch.allclose(found, expected, atol=1e-5)
    assert n_positions == [int(is_compared.sum())]


# A model that changes is checked again.


def change_block(model: Any) -> None:
    model.model.layers[2] = Changed(model.model.layers[2], lambda output, _: output * 1.01)


def change_feed_forward(model: Any) -> None:
    model.model.layers[-1].mlp = nn.Identity()


def change_forward(model: Any) -> None:
    model.model.layers[1].forward = model.model.layers[1].forward


@pytest.mark.parametrize(
    "change",
    [
        change_block,
        change_feed_forward,
        change_forward,
        lambda model: model.bfloat16(),
        lambda model: model.set_attn_implementation("eager"),
    ],
    ids=["block", "part of a block", "forward", "precision", "attention"],
)
def test_a_model_that_changed_is_checked_again(change: Callable[[Any], Any]) -> None:
    model, batch = build("Llama", torch.float32)
    before = [self_check(examine(model), *batch) for _ in range(3)]
    change(model)
    after = [self_check(examine(model), *batch) for _ in range(3)]
    assert len(set(map(id, before))) == len(set(map(id, after))) == 1
    assert after[0] is not before[0]

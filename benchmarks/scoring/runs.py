"""The ways of running a batch that are compared."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tests.reference import naive_score
from torch import Tensor, nn

from benchmarks.scoring.inputs import Batch, random_batch
from benchmarks.scoring.measure import Call, Cost, costs, flops
from benchmarks.scoring.models import Subject, build
from delta_attnmask.modeling.load import compile_blocks
from delta_attnmask.scoring.delta import score_batch
from delta_attnmask.settings import MaskSettings

PLAIN, NAIVE = "plain forward, one logit", "naive reference"
OURS = {"cpu": "ours, tiles", "cuda": "ours, Triton"}  # by the device
COMPILED = "ours, compiled"
PER_IMAGE = 4
LARGEST_NAIVE_BATCH = 8  # its attention maps and logits fill the memory beyond


@dataclass(frozen=True)
class Plan:
    """budget_s: of timed rounds for each model and batch size."""

    batch_sizes: tuple[int, ...]
    device: torch.device
    dtype: torch.dtype
    budget_s: float
    is_compiled: bool


@dataclass(frozen=True)
class Result:
    """One line of the table.

    flop: of one forward without logits, a sample's share of an image counted. padding: share of the batch's positions.
    """

    model: str
    run: str
    batch_size: int
    cost: Cost
    flop: float
    padding: float


def results(subject: Subject, plan: Plan) -> Iterator[Result]:
    """Every run of one model: at each batch size as it is, and then with compiled blocks."""
    model = build(subject, plan.device, plan.dtype)
    whole, vision = forward_flop(model, random_batch(subject, 1, 1, plan.device, plan.dtype))
    for is_compiled in (False, True) if plan.is_compiled else (False,):
        if is_compiled:
            compile_blocks(model)
        for batch_size in plan.batch_sizes:
            alone, sharing = (random_batch(subject, batch_size, n, plan.device, plan.dtype) for n in (1, PER_IMAGE))
            calls = compiled_runs(model, alone, sharing) if is_compiled else plain_runs(model, alone, sharing)
            measured = costs(calls, plan.device, plan.budget_s)
            padding = 1 - float(alone[0]["attention_mask"].float().mean())
            for name, cost in measured.items():
                flop = whole - vision * (1 - 1 / PER_IMAGE) if "share" in name else whole
                yield Result(subject.name, name, batch_size, cost, flop, padding)


def plain_runs(model: nn.Module, alone: Batch, sharing: Batch) -> dict[str, Call]:
    batch_size, device = len(alone[1]), alone[1].device
    calls: dict[str, Call] = {PLAIN: partial(plain_forward, model, alone)}
    if device.type == "cpu":
        calls["plain forward + loss"] = partial(plain_loss, model, alone)
    calls[OURS["cpu"]] = partial(score_batch, model, *alone, MaskSettings.paper(), attention="plain")
    if device.type == "cuda":
        calls[OURS["cuda"]] = partial(score_batch, model, *alone, MaskSettings.paper(), attention="triton")
    if batch_size >= PER_IMAGE:
        calls[f"ours, {PER_IMAGE} share an image"] = partial(score_batch, model, *sharing, MaskSettings.paper())
    if batch_size <= LARGEST_NAIVE_BATCH:
        calls[NAIVE] = partial(naive_score, model, *alone, MaskSettings.paper())
    return calls


def compiled_runs(model: nn.Module, alone: Batch, sharing: Batch) -> dict[str, Call]:
    calls: dict[str, Call] = {
        f"{PLAIN}, again": partial(uncompiled, plain_forward, model, alone),
        COMPILED: partial(score_batch, model, *alone, MaskSettings.paper()),
    }
    if len(alone[1]) >= PER_IMAGE:
        calls[f"{COMPILED}, {PER_IMAGE} share an image"] = partial(score_batch, model, *sharing, MaskSettings.paper())
    return calls


@torch.no_grad()
def plain_forward(model: nn.Module, batch: Batch) -> Tensor:
    """transformers as it comes: SDPA, the logits of the last position."""
    logits: Tensor = model(**batch[0], use_cache=False, logits_to_keep=1).logits
    return logits


@torch.no_grad()
def plain_loss(model: nn.Module, batch: Batch) -> Tensor:
    loss: Tensor = model(**batch[0], labels=batch[1], use_cache=False).loss
    return loss


def uncompiled(function: Any, *args: Any) -> Any:
    with torch.compiler.set_stance("force_eager"):
        return function(*args)


def forward_flop(model: Any, sample: Batch) -> tuple[int, int]:
    """Of a sample's forward, and of the vision tower's part in it."""
    images = {name: value for name, value in sample[0].items() if name in ("pixel_values", "image_grid_thw")}
    if "vision_feature_layer" in (config := model.config.to_dict()):
        images |= {name: config[name] for name in ("vision_feature_layer", "vision_feature_select_strategy")}
    with torch.no_grad():
        vision = flops(lambda: model.model.get_image_features(**images))
        return flops(lambda: plain_forward(model, sample)), vision

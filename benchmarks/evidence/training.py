"""Finetunes a base on picked rows and measures exact match, plain or with one of seven augmentations.

The vision tower is frozen and its features are cached (see `benchmarks.suite.cached`); projector and decoder train.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.suite.cached import (
    Batch,
    Rows,
    answer_loss,
    embed,
    gather,
    half,
    make_rows,
    plan_batches,
    speed_up,
)
from delta_attnmask.batches import TokenRoles
from delta_attnmask.masking import eligible_tokens
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.running import first_states, with_states
from delta_attnmask.settings import MaskSettings
from delta_attnmask.training.masked_states import StateMasking, masked_states
from delta_attnmask.training.plan import AugmentationSettings

AUGMENTATIONS = (
    "none", "twice", "twice-random", "twice-dropout", "masked", "random-tokens", "dropout", "neftune",
)  # fmt: skip
NEFTUNE_ALPHA = 5.0  # the paper's default (arXiv:2310.05914)


@dataclass(frozen=True)
class Recipe:
    """How every method is trained: the same for all, chosen on the validation split (`tuning`)."""

    lr: float = 1e-3
    epochs: int = 4
    batch: int = 16
    probability: float = 0.5  # of a sample being augmented


@dataclass(frozen=True)
class Split:
    """A split of the suite for one base, with each row's source; tower_s: what the tower took for a row."""

    rows: Rows
    sources: list[str]
    tower_s: float


def read_split(model: nn.Module, tokenizer: object, suite: Path, name: str) -> Split:
    """A split's rows with the features of its pictures."""
    entries = json.loads((suite / f"{name}.json").read_text())
    pixels = []
    for entry in entries:
        with PILImage.open(suite / "images" / entry["image"]) as picture:
            pixels.append(np.asarray(picture.convert("RGB")))
    texts = [
        (turns[0]["value"].removeprefix("<image>\n"), turns[1]["value"])
        for turns in (entry["conversations"] for entry in entries)
    ]
    clock = clock_of(model)
    started = clock()
    rows = make_rows(model.model.vision_tower, tokenizer, texts, pixels)  # type: ignore[union-attr,arg-type]
    return Split(rows, [entry["source"] for entry in entries], (clock() - started) / max(1, len(entries)))


def clock_of(model: nn.Module) -> Callable[[], float]:
    """CPU seconds unless on a GPU, so that a busy machine changes little."""
    return time.perf_counter if model.lm_head.weight.is_cuda else time.process_time  # type: ignore[union-attr]


@dataclass(frozen=True)
class Trained:
    """What a training took, by `clock_of`; the tower, whose features are cached, not counted."""

    n_steps: int
    seconds: float


def finetune(
    model: nn.Module,
    rows: Rows,
    recipe: Recipe,
    seed: int,
    *,
    n_steps: int | None = None,
    augmentation: str = "",
    mask: MaskSettings | None = None,
) -> Trained:
    """Train in place: AdamW, warm-up and cosine, the loss on answer tokens.

    n_steps: how many; the recipe's epochs if not given. augmentation: a name of AUGMENTATIONS, or "" for the short way
    through the language model alone, which gives the same loss as "none". "twice" and its controls see every row plain
    and masked, in half as many epochs.
    """
    speed_up(model)
    clock = clock_of(model)
    started = clock()
    torch.manual_seed(seed)
    plan = _plan(rows, recipe, np.random.default_rng(seed), augmentation.startswith("twice"), n_steps)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=0.01, betas=(0.9, 0.98))
    model.train()
    with ExitStack() as stack:
        step_loss = _Loss(stack, model, recipe, augmentation, seed, mask)
        for step, (which, is_second) in enumerate(plan):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / len(plan)))
            step_loss(gather(rows, which.tolist()), is_second).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return Trained(len(plan), clock() - started)


def accuracies(is_right: NDArray[np.bool_], sources: Sequence[str]) -> dict[str, float]:
    """Exact match by source, and the mean over sources."""
    names = np.array(sources)
    found = {str(source): float(is_right[names == source].mean()) for source in np.unique(names)}
    return {"mean": float(np.mean(list(found.values()))), **found}


Step = tuple[NDArray[np.int64], NDArray[np.bool_] | None]  # rows, and which of them are the masked copy


def _plan(rows: Rows, recipe: Recipe, rng: np.random.Generator, is_twice: bool, n_steps: int | None) -> list[Step]:
    """The recipe's epochs (an epoch of "twice" counts for two), or exactly `n_steps`."""
    plan: list[Step] = []
    n_epochs = max(1, recipe.epochs // 2) if is_twice else recipe.epochs
    epoch = 0
    while epoch < n_epochs if n_steps is None else len(plan) < n_steps:
        plan += (
            _twice(rows, recipe.batch, rng) if is_twice else [(w, None) for w in plan_batches(rows, recipe.batch, rng)]
        )
        epoch += 1
    return plan[:n_steps]


def _twice(rows: Rows, size: int, rng: np.random.Generator) -> list[Step]:
    """One epoch over every row twice, with True where it is the masked copy."""
    doubled = rows.take([*range(len(rows)), *range(len(rows))])
    return [(which % len(rows), which >= len(rows)) for which in plan_batches(doubled, size, rng)]


class _Loss:
    """The loss of a batch under an augmentation; whatever is attached to the model leaves with the stack."""

    def __init__(
        self,
        stack: ExitStack,
        model: nn.Module,
        recipe: Recipe,
        augmentation: str,
        seed: int,
        mask: MaskSettings | None,
    ) -> None:
        self._model, self._augmentation = model, augmentation
        self._masking: StateMasking | None = None
        self._dropping: _Dropping | None = None
        probability = 1.0 if augmentation.startswith("twice") else recipe.probability
        if augmentation.endswith("dropout"):
            self._dropping = _Dropping(stack, model, mask or MaskSettings.paper(), probability)
        elif augmentation not in ("", "none", "neftune"):
            mask = _with_order(mask or MaskSettings.paper(), augmentation)
            settings = AugmentationSettings(mask=mask, probability=probability, seed=seed)
            self._masking = stack.enter_context(masked_states(model, settings))

    def __call__(self, batch: Batch, is_second: NDArray[np.bool_] | None) -> Tensor:
        if not self._augmentation:
            return answer_loss(self._model, batch)
        device = self._model.lm_head.weight.device  # type: ignore[union-attr]
        labels = torch.where(batch.is_answer, batch.tokens, -100).to(device)
        inputs = {"attention_mask": batch.attention_mask.to(device), "use_cache": False}
        if self._masking is not None:
            inputs["masking_labels"] = labels
            if is_second is not None:
                inputs["masking_allowed"] = torch.from_numpy(is_second).to(device)
        if self._dropping is not None:
            self._dropping.choose(batch.attention_mask.to(device), labels, is_second)
        with half(device):
            embedded = embed(self._model, batch)
            if self._augmentation == "neftune":
                embedded = _noised(embedded, inputs["attention_mask"])
            logits = self._model(inputs_embeds=embedded, **inputs).logits
        is_answer = labels[:, 1:] != -100
        return functional.cross_entropy(logits[:, :-1][is_answer].float(), labels[:, 1:][is_answer])


class _Dropping:
    """A control of the same strength as masking: of the eligible tokens' states at the mask's block single values are
    dropped, each with the probability `mask.fraction`, and the others scaled up."""

    def __init__(self, stack: ExitStack, model: nn.Module, mask: MaskSettings, probability: float) -> None:
        anatomy = examine(model)
        self._mask, self._probability = mask, probability
        self._places = torch.zeros(0)
        stack.callback(anatomy.blocks[anatomy.resolve_block(mask.block)].register_forward_hook(self._drop).remove)

    def choose(self, attention_mask: Tensor, labels: Tensor, is_second: NDArray[np.bool_] | None) -> None:
        """Draw the samples of the next forward; of "twice" only the second copies."""
        roles = TokenRoles.of({"attention_mask": attention_mask}, labels, None)
        is_drawn = torch.rand(len(labels), device=labels.device) < self._probability
        if is_second is not None:
            is_drawn &= torch.from_numpy(is_second).to(labels.device)
        self._places = eligible_tokens(roles, self._mask.tokens, self._mask.exclude) & is_drawn[:, None]

    def _drop(self, _module: nn.Module, _args: object, output: object) -> object:
        states = first_states(output)
        dropped = functional.dropout(states, self._mask.fraction)
        return with_states(output, torch.where(self._places[..., None], dropped, states))


def _with_order(mask: MaskSettings, augmentation: str) -> MaskSettings:
    order = "random" if "random" in augmentation else mask.order
    return MaskSettings(**{**mask.to_dict(), "order": order})


def _noised(embedded: Tensor, attention_mask: Tensor) -> Tensor:
    """Uniform noise of NEFTune's size on every token's embedding."""
    n_values = attention_mask.sum(1, keepdim=True)[..., None] * embedded.shape[-1]
    noise = torch.empty_like(embedded).uniform_(-1, 1)
    return embedded + noise * (NEFTUNE_ALPHA / n_values.sqrt()) * attention_mask[..., None]

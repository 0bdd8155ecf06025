"""Δ-AttnMask: how much the answer's loss rises when the most attended hidden states are masked (arXiv:2508.09199).

The steps: capture one forward, choose the tokens, mask their states, run the tail, subtract.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles, require_fitting
from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.masking import (
    choose_tokens,
    counted_queries,
    eligible_tokens,
    priority,
    replacement_state,
    sample_seeds,
)
from delta_attnmask.modeling.anatomy import Anatomy, examine
from delta_attnmask.modeling.capture import CapturedForward, captured_forward, nats
from delta_attnmask.modeling.devices import is_out_of_memory
from delta_attnmask.modeling.selfcheck import checked_anatomy
from delta_attnmask.scoring.rivals import AttentionRival, Rival, TokenRival
from delta_attnmask.settings import AttentionBackend, MaskSettings, Queries

_RIVALS_READ: Queries = "all"  # the attention of all queries, whatever the settings count


@dataclass(frozen=True)
class BatchScore:
    """Scores of one batch, float32, on the device of the labels.

    loss, masked_loss: mean negative log-likelihood over the answer tokens in nats, `[batch]`.
    delta: `masked_loss - loss`.
    saliency: attention that each token receives, `[batch, seq]`; 0 at padding.
    is_masked: the tokens whose states were masked, `[batch, seq]`.
    """

    loss: Tensor
    masked_loss: Tensor
    saliency: Tensor
    is_masked: Tensor

    @property
    def delta(self) -> Tensor:
        return self.masked_loss - self.loss


@dataclass(frozen=True)
class BatchSweep:
    """One batch under many settings.

    scores: one for each setting, in their order; masked losses are NaN where a sample has no eligible token.
    rivals: other scores of the same forward by name, `[batch]`.
    embeddings: `[batch, hidden]`; None unless asked for.
    """

    scores: list[BatchScore]
    rivals: dict[str, Tensor]
    embeddings: Tensor | None = None


def score_batch(
    model: nn.Module,
    inputs: Mapping[str, Any],
    labels: Tensor,
    settings: MaskSettings | None = None,
    *,
    special_ids: Iterable[int] = (),
    attention: AttentionBackend = "auto",
) -> BatchScore:
    """Score the samples of one batch with one forward and one more pass through the blocks after the masked one.

    model: any Hugging Face model with a language-model head; it is left unchanged.
    inputs: what the model's forward takes, without labels.
    labels: `[batch, seq]`, unshifted; -100 where a position is no answer token.
    special_ids: token ids that `exclude="special"` keeps from being masked.
    attention: which code computes attention and what tokens receive of it; "auto" takes the fastest.

    Raises UnsupportedModelError where the model can't be read or its tail doesn't replay exactly (checked at the
    first batch of each model, and again when its blocks or precision change), SettingsError where the
    settings don't fit the model or the batch, DataError where inputs and labels don't fit each other or a sample has
    no answer token.
    """
    settings = settings or MaskSettings()
    try:
        sweep = sweep_batch(model, inputs, labels, [settings], special_ids=special_ids, attention=attention)
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
        if isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
            raise
        raise DataError(
            f"{type(model).__name__} can't run on these inputs: {error}; check that they are what its processor gives, "
            "on the model's device, and in its precision where they are floating-point"
        ) from error
    score = sweep.scores[0]
    unmaskable = score.masked_loss.isnan().logical_and(~score.loss.isnan()).nonzero().flatten().tolist()
    if unmaskable:
        raise SettingsError(
            f"tokens={settings.tokens!r}: samples {unmaskable} of the batch have no such token; "
            "text-only samples need tokens='all' or 'prompt'"
        )
    return score


@torch.no_grad()
def sweep_batch(
    model: nn.Module,
    inputs: Mapping[str, Any],
    labels: Tensor,
    grid: Sequence[MaskSettings],
    *,
    rivals: Mapping[str, Rival] | None = None,
    embed: bool = False,
    special_ids: Iterable[int] = (),
    attention: AttentionBackend = "auto",
    image_of: Sequence[int] | None = None,
    anatomy: Anatomy | None = None,
) -> BatchSweep:
    """Score a batch under many settings for one forward; only the tail is run again for each.

    grid: at least one setting. rivals: further scores, computed from the logits and the attention of that forward.
    embed: pool the states of the middle block too.
    image_of: which images are equal, as in an `EncodedBatch`; each is encoded once.
    anatomy: the model's, if it is known, which spares looking for its parts.
    Raises like `score_batch`, but a sample without an eligible token is no error.
    """
    rivals = rivals or {}
    anatomy, roles = _prepare(anatomy or examine(model), inputs, labels, attention, special_ids)
    blocks = [anatomy.resolve_block(settings.block) for settings in grid]
    middle = [anatomy.middle_block] if embed else []
    pools = _pools(grid, rivals)
    weights = torch.stack([counted_queries(roles, queries) for queries in pools], dim=1).float()

    kept = [*(block for block, settings in zip(blocks, grid, strict=True) if settings.fraction), *middle]
    with captured_forward(anatomy, inputs, labels, roles, weights, kept, attention, image_of) as forward:
        means = _means(forward, roles, rivals)
        saliency = {queries: forward.saliency[:, index] * roles.is_token for index, queries in enumerate(pools)}
        choices = _choose(grid, saliency, roles, sample_seeds(inputs, roles))
        masked_losses = [
            _masked_loss(forward, block, settings, choice, roles) if settings.fraction else means["loss"]
            for block, settings, choice in zip(blocks, grid, choices, strict=True)
        ]
        embeddings = roles.pool(forward.states[middle[0]]) if embed else None

    scores = [
        BatchScore(means["loss"], loss.masked_fill(~choice.is_maskable, torch.nan), choice.saliency, choice.is_masked)
        for loss, choice in zip(masked_losses, choices, strict=True)
    ]
    others = {name: value for name, value in means.items() if name in rivals}
    return BatchSweep(scores, others | _shares(rivals, saliency, roles), embeddings)


def _prepare(
    anatomy: Anatomy,
    inputs: Mapping[str, Any],
    labels: Tensor,
    attention: AttentionBackend,
    special_ids: Iterable[int] = (),
) -> tuple[Anatomy, TokenRoles]:
    """The checked model and the roles of the batch; whatever can't be scored is refused here."""
    require_fitting(inputs, labels)
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id, special_ids)
    roles.require_answers()
    return checked_anatomy(anatomy, inputs, labels, attention), roles


@dataclass(frozen=True)
class _ChosenTokens:
    """What one setting masks.

    saliency, is_masked: `[batch, seq]`. is_maskable: whether the sample has any token that may be masked, `[batch]`.
    """

    saliency: Tensor
    is_masked: Tensor
    is_maskable: Tensor


def _pools(grid: Sequence[MaskSettings], rivals: Mapping[str, Rival]) -> list[Queries]:
    """The ways of counting queries that are asked for; attention rivals read that of all queries, whatever is swept."""
    asked = {settings.queries for settings in grid}
    if any(isinstance(rival, AttentionRival) for rival in rivals.values()):
        asked.add(_RIVALS_READ)
    return sorted(asked)


def _means(forward: CapturedForward, roles: TokenRoles, rivals: Mapping[str, Rival]) -> dict[str, Tensor]:
    """The loss and the rivals made of logits, mean over each sample's answer tokens; `[batch]` a name."""
    by_token = {name: rival.value for name, rival in rivals.items() if isinstance(rival, TokenRival)}
    values = forward.token_values(forward.final_rows(), {"loss": nats, **by_token})
    return {name: roles.mean_by_sample(value) for name, value in values.items()}


def _choose(
    grid: Sequence[MaskSettings], saliency: Mapping[Queries, Tensor], roles: TokenRoles, seeds: Tensor
) -> list[_ChosenTokens]:
    """The tokens that each setting masks: the share of the eligible ones that comes first in its order."""
    choices = []
    for settings in grid:
        received = saliency[settings.queries]
        eligible = eligible_tokens(roles, settings.tokens, settings.exclude)
        ranked_by = priority(received, settings.order, seeds, roles.is_token)
        choices.append(_ChosenTokens(received, choose_tokens(ranked_by, eligible, settings.fraction), eligible.any(-1)))
    return choices


def _masked_loss(
    forward: CapturedForward, block: int, settings: MaskSettings, choice: _ChosenTokens, roles: TokenRoles
) -> Tensor:
    """Each sample's loss with the chosen tokens' states replaced after the block; `[batch]`."""
    fill = replacement_state(forward.states[block], roles.is_token, settings.replacement)
    return forward.answer_loss(forward.run_masked(block, choice.is_masked, fill))


def _shares(rivals: Mapping[str, Rival], saliency: Mapping[Queries, Tensor], roles: TokenRoles) -> dict[str, Tensor]:
    """The rivals made of the attention received, `[batch]` a name."""
    return {
        name: rival.value(saliency[_RIVALS_READ], roles)
        for name, rival in rivals.items()
        if isinstance(rival, AttentionRival)
    }


@torch.no_grad()
def loss_batch(
    model: nn.Module,
    inputs: Mapping[str, Any],
    labels: Tensor,
    *,
    attention: AttentionBackend = "auto",
    image_of: Sequence[int] | None = None,
    anatomy: Anatomy | None = None,
) -> Tensor:
    """The loss alone: mean negative log-likelihood over each sample's answer tokens in nats; `[batch]`, float32."""
    anatomy, roles = _prepare(anatomy or examine(model), inputs, labels, attention)
    no_pools = torch.zeros(labels.shape[0], 0, labels.shape[1], device=labels.device)
    with captured_forward(anatomy, inputs, labels, roles, no_pools, [], attention, image_of) as forward:
        return forward.answer_loss(forward.final_rows())

"""Δ-AttnMask: how much the answer's loss rises when the most attended hidden states are masked (arXiv:2508.09199).

The steps: capture one forward, choose the tokens, mask their states, run the tail, subtract.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.masking.choose import choose_tokens, counted_queries, eligible_tokens, priority, sample_seeds
from delta_attnmask.masking.replace import replacement_state
from delta_attnmask.modeling.attention.received import AttentionBackend
from delta_attnmask.modeling.capture import captured_forward, nats
from delta_attnmask.modeling.selfcheck import checked_anatomy
from delta_attnmask.scoring.embeddings import middle_block, pool_states
from delta_attnmask.scoring.rivals import AttentionRival, Rival, TokenRival
from delta_attnmask.settings import MaskSettings


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
    """Score the samples of one batch with one forward and one more pass through the blocks behind the masked one.

    model: any Hugging Face model with a language-model head; nothing is left behind in it.
    inputs: what the model's forward takes, labels apart.
    labels: `[batch, seq]`, unshifted; -100 where a position is no answer token.
    special_ids: token ids that `exclude="special"` keeps from being masked.
    attention: which code computes attention and what tokens receive of it; "auto" takes the fastest.

    Raises UnsupportedModelError where the model can't be read or its tail doesn't replay exactly (checked at the
    first batch of each model), SettingsError where the settings don't fit the model or the batch, DataError
    where a sample has no answer token.
    """
    settings = settings or MaskSettings()
    score = sweep_batch(model, inputs, labels, [settings], special_ids=special_ids, attention=attention).scores[0]
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
) -> BatchSweep:
    """Score a batch under many settings for one forward; only the tail is run again for each.

    grid: at least one setting. rivals: further scores, computed from the logits and the attention of that forward.
    embed: pool the states of the middle block too.
    Raises like `score_batch`, but a sample without an eligible token is no error.
    """
    rivals = rivals or {}
    anatomy = checked_anatomy(model, inputs, labels, attention)
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id, special_ids)
    _require_answers(roles)
    blocks = [anatomy.resolve_block(settings.block) for settings in grid]
    pools = sorted({settings.queries for settings in grid})
    weights = torch.stack([counted_queries(roles, queries) for queries in pools], dim=1).float()
    seeds = sample_seeds(inputs, roles)

    middle = [middle_block(anatomy.n_blocks)] if embed else []
    with captured_forward(anatomy, inputs, labels, weights, [*blocks, *middle], attention) as forward:
        by_token = {name: rival.value for name, rival in rivals.items() if isinstance(rival, TokenRival)}
        values = forward.token_values(forward.final_rows(), {"loss": nats, **by_token})
        means = {name: roles.mean_by_sample(value) for name, value in values.items()}
        saliency = {queries: forward.saliency[:, index] * roles.is_token for index, queries in enumerate(pools)}
        fills = {
            (block, how): replacement_state(forward.states[block], roles.is_token, how)
            for block, how in {(block, s.replacement) for block, s in zip(blocks, grid, strict=True)}
        }
        masks, unmaskable = [], []
        for settings in grid:
            eligible = eligible_tokens(roles, settings.tokens, settings.exclude)
            ranked_by = priority(saliency[settings.queries], settings.order, seeds, roles.is_token)
            masks.append(choose_tokens(ranked_by, eligible, settings.fraction))
            unmaskable.append(~eligible.any(-1))
        masked_losses: dict[int, Tensor] = {}
        for block in set(blocks):
            own = [index for index, other in enumerate(blocks) if other == block]
            pairs = [(masks[index], fills[block, grid[index].replacement]) for index in own]
            masked_losses |= zip(own, forward.masked_losses(block, pairs), strict=True)
    scores = [
        BatchScore(
            means["loss"],
            masked_losses[index].masked_fill(unmaskable[index], torch.nan),
            saliency[s.queries],
            is_masked,
        )
        for index, (s, is_masked) in enumerate(zip(grid, masks, strict=True))
    ]
    by_attention = {
        name: rival.value(saliency[pools[0]], roles)
        for name, rival in rivals.items()
        if isinstance(rival, AttentionRival)
    }
    embeddings = pool_states(forward.states[middle[0]], roles) if embed else None
    return BatchSweep(scores, {name: means[name] for name in by_token} | by_attention, embeddings)


@torch.no_grad()
def loss_batch(
    model: nn.Module, inputs: Mapping[str, Any], labels: Tensor, *, attention: AttentionBackend = "auto"
) -> Tensor:
    """The loss alone: mean negative log-likelihood over each sample's answer tokens in nats; `[batch]`, float32."""
    anatomy = checked_anatomy(model, inputs, labels, attention)
    no_pools = torch.zeros(labels.shape[0], 0, labels.shape[1], device=labels.device)
    with captured_forward(anatomy, inputs, labels, no_pools, [], attention) as forward:
        return forward.answer_loss(forward.final_rows())


def _require_answers(roles: TokenRoles) -> None:
    without = (~roles.predicts_answer.any(-1)).nonzero().flatten().tolist()
    if without:
        raise DataError(f"samples {without} of the batch have no answer token; labels must mark at least one")

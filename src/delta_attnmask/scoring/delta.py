"""Δ-AttnMask: how much the answer's loss rises when the most attended hidden states are masked (arXiv:2508.09199).

The steps of `score_batch`: capture one forward, choose the tokens, mask their states, run the tail, subtract.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.masking.choose import eligible_tokens, most_attended
from delta_attnmask.masking.replace import replace_states
from delta_attnmask.modeling.capture import captured_forward
from delta_attnmask.modeling.selfcheck import checked_anatomy
from delta_attnmask.settings import MaskSettings, Tokens


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


def score_batch(
    model: nn.Module, inputs: Mapping[str, Any], labels: Tensor, settings: MaskSettings | None = None
) -> BatchScore:
    """Score the samples of one batch with one forward and one more pass through the blocks behind the masked one.

    model: any Hugging Face model with a language-model head; nothing is left behind in it.
    inputs: what the model's forward takes, labels apart.
    labels: `[batch, seq]`, unshifted; -100 where a position is no answer token.

    Raises UnsupportedModelError where the model can't be read or its tail doesn't replay exactly (checked at the
    first batch of each model), SettingsError where the settings don't fit the model or the batch, DataError
    where a sample has no answer token.
    """
    settings = settings or MaskSettings()
    anatomy = checked_anatomy(model, inputs, labels)
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    block = anatomy.resolve_block(settings.block)
    eligible = eligible_tokens(roles, settings.tokens)
    _require_answers_and_eligible(roles, eligible, settings.tokens)
    counted = roles.is_token if settings.queries == "all" else roles.predicts_answer

    with captured_forward(anatomy, inputs, labels, counted[:, None].float(), [block]) as forward:
        saliency = forward.saliency[:, 0] * roles.is_token
        is_masked = most_attended(saliency, eligible, settings.fraction)
        masked = replace_states(forward.states[block], is_masked, roles.is_token, settings.replacement)
        loss = forward.answer_loss(forward.final_rows())
        masked_loss = forward.answer_loss(forward.run_tail(block, masked))

    return BatchScore(loss, masked_loss, saliency, is_masked)


def _require_answers_and_eligible(roles: TokenRoles, eligible: Tensor, tokens: Tokens) -> None:
    without_answer = (~roles.predicts_answer.any(-1)).nonzero().flatten().tolist()
    if without_answer:
        raise DataError(f"samples {without_answer} of the batch have no answer token; labels must mark at least one")
    without_eligible = (~eligible.any(-1)).nonzero().flatten().tolist()
    if without_eligible:
        raise SettingsError(
            f"tokens={tokens!r}: samples {without_eligible} of the batch have no such token; "
            "text-only samples need tokens='all' or 'prompt'"
        )

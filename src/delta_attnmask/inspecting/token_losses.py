"""What the mask does to each answer token: its loss before and after."""

from dataclasses import dataclass

import torch
from torch import Tensor

from delta_attnmask.batches import EncodedBatch, TokenRoles
from delta_attnmask.masking.replace import replace_states
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.capture import captured_forward
from delta_attnmask.settings import MaskSettings


@dataclass(frozen=True)
class TokenLosses:
    """Nats of each answer token of the batch, sample after sample in order; `[row]`, float32."""

    loss: Tensor
    masked_loss: Tensor

    @property
    def delta(self) -> Tensor:
        return self.masked_loss - self.loss


def token_losses(anatomy: Anatomy, batch: EncodedBatch, settings: MaskSettings, is_masked: Tensor) -> TokenLosses:
    """Run the batch once more and mask what `score_batch` has masked; the means over a sample are its two losses.

    is_masked: `[batch, seq]`, as `BatchScore` has it.
    """
    block = anatomy.resolve_block(settings.block)
    roles = TokenRoles.of(batch.inputs, batch.labels, anatomy.image_token_id)
    no_pools = torch.zeros(len(is_masked), 0, is_masked.shape[1], device=is_masked.device)
    with captured_forward(anatomy, batch.inputs, batch.labels, no_pools, [block]) as forward:
        states = replace_states(forward.states[block], is_masked, roles.is_token, settings.replacement)
        loss = forward.token_losses(forward.final_rows())
        return TokenLosses(loss, forward.token_losses(forward.run_tail(block, states)))

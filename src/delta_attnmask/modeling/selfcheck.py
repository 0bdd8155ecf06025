"""Is this loaded model read and replayed exactly? Asked once for each model, with its first batch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy, examine
from delta_attnmask.modeling.capture import captured_forward, plain_logits

# Largest relative difference of the final states that the same arithmetic in another order may show.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_LOSS_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}

_checked: WeakKeyDictionary[nn.Module, "SelfCheck"] = WeakKeyDictionary()


@dataclass(frozen=True)
class SelfCheck:
    """What was found in a model, and how well its replay agrees.

    replay_error: largest difference of the final states between the forward and its replayed tail, relative.
    loss_error: largest difference in nats between the captured loss and the untouched model's.
    """

    decoder_path: str
    n_blocks: int
    n_recorded: int
    backend: str
    replay_error: float
    loss_error: float

    def __str__(self) -> str:
        replay = "exact" if self.replay_error == 0 else f"within {self.replay_error:.1e}"
        return (
            f"decoder {self.decoder_path or '(the model)'}, {self.n_recorded} of {self.n_blocks} blocks recorded, "
            f"attention {self.backend}, replay {replay}, loss within {self.loss_error:.1e} of the untouched model"
        )


def checked_anatomy(model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> Anatomy:
    """The model's anatomy, after a self-check if this model had none yet."""
    self_check(model, inputs, labels)
    return examine(model)


def self_check(model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> SelfCheck:
    """What `check_model` found at the first batch of this model."""
    if model not in _checked:
        _checked[model] = check_model(model, inputs, labels)
    return _checked[model]


def tolerance(dtype: torch.dtype) -> float:
    """How far two losses in nats may differ by rounding in another order."""
    return _LOSS_TOLERANCE.get(dtype, 1e-4)


def check_model(model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> SelfCheck:
    """Replay the unmasked tail of every block that may be masked, and compare with the untouched model.

    Raises UnsupportedModelError where the two differ by more than rounding.
    """
    anatomy = examine(model)
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    probes = sorted({0, anatomy.last_block // 2, anatomy.last_block})
    with captured_forward(anatomy, inputs, labels, roles.is_token[:, None].float(), probes) as forward:
        rows = forward.final_rows()
        scale = rows.float().abs().max().clamp(min=1e-6)
        replays = [forward.run_tail(block, forward.states[block]) for block in probes]
        replay_error = max(float((replay - rows).float().abs().max() / scale) for replay in replays)
        token_losses, targets = forward.token_losses(rows), roles.targets(labels)
    untouched = plain_logits(anatomy, inputs)[roles.predicts_answer.nonzero(as_tuple=True)]
    expected = torch.nn.functional.cross_entropy(untouched.float(), targets.to(untouched.device), reduction="none")
    check = SelfCheck(
        decoder_path=anatomy.decoder_path,
        n_blocks=anatomy.n_blocks,
        n_recorded=forward.n_recorded,
        backend=forward.backend,
        replay_error=replay_error,
        loss_error=float((token_losses - expected).abs().max()),
    )
    _require_agreement(model, check, rows.dtype)
    return check


def _require_agreement(model: nn.Module, check: SelfCheck, dtype: torch.dtype) -> None:
    name = type(model).__name__
    if not check.replay_error <= _TOLERANCE.get(dtype, 1e-4):
        raise UnsupportedModelError(
            f"{name}: running the tail of its decoder again gives other states ({check}); "
            "its scores would be wrong, so it is refused (docs/add-a-model.md)"
        )
    if not check.loss_error <= _LOSS_TOLERANCE.get(dtype, 1e-4):
        raise UnsupportedModelError(
            f"{name}: reading its attention changes its loss ({check}); its scores would be wrong, so it is refused; "
            'try it loaded with attn_implementation="eager", or see docs/add-a-model.md'
        )

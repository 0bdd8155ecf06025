"""Is this loaded model read and replayed exactly? Asked once for each model, with its first batch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import DataError, UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy, examine
from delta_attnmask.modeling.attention.received import AttentionBackend
from delta_attnmask.modeling.capture import captured_forward, plain_logits

# Largest relative difference of the final states that the same arithmetic in another order may show.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_LOSS_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}

_checked: WeakKeyDictionary[nn.Module, dict[AttentionBackend, "SelfCheck"]] = WeakKeyDictionary()


@dataclass(frozen=True)
class SelfCheck:
    """What was found in a model, and how well its replay agrees.

    replay_error: largest difference of the final states between the forward and its replayed tail, relative.
    loss_error: largest difference in nats between the captured loss and the untouched model's.
    is_narrowed: whether the last block's feed-forward part may run on the positions that are read alone.
    runs_on_rows: whether all of the last block may be run again on them alone.
    """

    decoder_path: str
    n_blocks: int
    n_recorded: int
    backend: str
    replay_error: float
    loss_error: float
    is_narrowed: bool
    runs_on_rows: bool = False

    def __str__(self) -> str:
        replay = "exact" if self.replay_error == 0 else f"within {self.replay_error:.1e}"
        return (
            f"decoder {self.decoder_path or '(the model)'}, {self.n_recorded} of {self.n_blocks} blocks recorded, "
            f"attention {self.backend}, replay {replay}, loss within {self.loss_error:.1e} of the untouched model"
        )


def checked_anatomy(
    model: nn.Module, inputs: Mapping[str, Any], labels: Tensor, attention: AttentionBackend = "auto"
) -> Anatomy:
    """The model's anatomy, after a self-check if this model had none yet."""
    check, anatomy = self_check(model, inputs, labels, attention), examine(model)
    return replace(anatomy, row_wise=anatomy.row_wise if check.is_narrowed else None, runs_on_rows=check.runs_on_rows)


def self_check(
    model: nn.Module, inputs: Mapping[str, Any], labels: Tensor, attention: AttentionBackend = "auto"
) -> SelfCheck:
    """What `check_model` found at the first batch of this model under this attention backend."""
    checks = _checked.setdefault(model, {})
    if attention not in checks:
        checks[attention] = check_model(model, inputs, labels, attention)
    return checks[attention]


def tolerance(dtype: torch.dtype) -> float:
    """How far two losses in nats may differ by rounding in another order."""
    return _LOSS_TOLERANCE.get(dtype, 1e-4)


def check_model(
    model: nn.Module, inputs: Mapping[str, Any], labels: Tensor, attention: AttentionBackend = "auto"
) -> SelfCheck:
    """Replay the unmasked tail of every block that may be masked, and compare with the untouched model.

    Raises UnsupportedModelError where the two differ by more than rounding, DataError where the untouched model gives
    no finite loss to compare with.
    """
    anatomy = examine(model)
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    untouched = plain_logits(anatomy, inputs)[roles.predicts_answer.nonzero(as_tuple=True)]
    targets = roles.targets(labels).to(untouched.device)
    expected = torch.nn.functional.cross_entropy(untouched.float(), targets, reduction="none")
    if not expected.isfinite().any():
        raise DataError("the loss is not finite")
    dtype = untouched.dtype
    check = _compare(anatomy, inputs, labels, expected, attention)
    if anatomy.row_wise is not None and not (_replays(check, dtype) and _has_same_loss(check, dtype)):
        check = _compare(replace(anatomy, row_wise=None), inputs, labels, expected, attention)
    _require_agreement(model, check, dtype)
    checked = anatomy if check.is_narrowed else replace(anatomy, row_wise=None)
    return replace(check, runs_on_rows=_runs_on_rows(checked, inputs, labels, attention, dtype))


def _compare(
    anatomy: Anatomy, inputs: Mapping[str, Any], labels: Tensor, expected: Tensor, attention: AttentionBackend
) -> SelfCheck:
    """expected: the untouched model's loss of each answer token, `[row]`."""
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    last = min(anatomy.last_block, max(0, anatomy.n_blocks - 2))  # behind the very last block there is but a norm
    probes = sorted({0, last // 2, last})
    weights = roles.is_token[:, None].float()
    with captured_forward(anatomy, inputs, labels, weights, probes, attention) as forward:
        rows = forward.final_rows()
        is_finite = expected.isfinite().to(rows.device)
        scale = rows[is_finite].float().abs().max().clamp(min=1e-6)
        replays = [forward.run_tail(block, forward.states[block]) for block in probes]
        token_losses = forward.token_losses(rows)
    return SelfCheck(
        decoder_path=anatomy.decoder_path,
        n_blocks=anatomy.n_blocks,
        n_recorded=forward.n_recorded,
        backend=forward.backend,
        replay_error=max(float((replay - rows)[is_finite].float().abs().max() / scale) for replay in replays),
        loss_error=float((token_losses - expected)[expected.isfinite()].abs().max()),
        is_narrowed=anatomy.row_wise is not None,
    )


def _runs_on_rows(
    anatomy: Anatomy, inputs: Mapping[str, Any], labels: Tensor, attention: AttentionBackend, dtype: torch.dtype
) -> bool:
    """Whether the last block gives the rows the same alone as in the whole sequence, masked and not."""
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    is_masked = roles.is_token & (torch.arange(labels.shape[1], device=labels.device) % 3 == 1)
    block = min(anatomy.last_block, max(0, anatomy.n_blocks - 2))

    def rows(runs_on_rows: bool) -> Tensor:
        checked = replace(anatomy, runs_on_rows=runs_on_rows)
        weights = roles.is_token[:, None].float()
        with captured_forward(checked, inputs, labels, weights, [block], attention) as forward:
            fill = forward.states[block].mean(-2, keepdim=True)
            masked = [forward.run_masked(block, is_masked, fill)] if block >= forward.first_block else []
            return torch.stack([forward.final_rows(), *masked]).float()

    whole = rows(runs_on_rows=False)
    try:
        difference = rows(runs_on_rows=True) - whole
    except (RuntimeError, ValueError, TypeError, IndexError, UnsupportedModelError):  # it can't take rows alone
        return False
    return bool(difference.nan_to_num(0).abs().max() <= _TOLERANCE.get(dtype, 1e-4) * whole.nan_to_num(0).abs().max())


def _replays(check: SelfCheck, dtype: torch.dtype) -> bool:
    return check.replay_error <= _TOLERANCE.get(dtype, 1e-4)


def _has_same_loss(check: SelfCheck, dtype: torch.dtype) -> bool:
    return check.loss_error <= _LOSS_TOLERANCE.get(dtype, 1e-4)


def _require_agreement(model: nn.Module, check: SelfCheck, dtype: torch.dtype) -> None:
    name = type(model).__name__
    if not _replays(check, dtype):
        raise UnsupportedModelError(
            f"{name}: running the tail of its decoder again gives other states ({check}); "
            "its scores would be wrong, so it is refused (docs/add-a-model.md)"
        )
    if not _has_same_loss(check, dtype):
        raise UnsupportedModelError(
            f"{name}: reading its attention changes its loss ({check}); its scores would be wrong, so it is refused; "
            'try it loaded with attn_implementation="eager", or see docs/add-a-model.md'
        )

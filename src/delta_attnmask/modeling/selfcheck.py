"""Is this loaded model read and replayed exactly? Asked once for each state of a model, with its first batch.

Everything is compared by the losses of single tokens, which is what scores are made of, and held against what rounding
alone does to them (`rounding`). The tokens are every second one of the samples' text: many, so that their mean means
something, and never neighbours, so that a block that looks at neighbours is caught where it runs on single rows.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from delta_attnmask.batches import IGNORED_LABEL, TokenRoles
from delta_attnmask.errors import DataError, UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.capture import captured_forward
from delta_attnmask.modeling.devices import is_out_of_memory
from delta_attnmask.modeling.recorder import REGISTRY_LOCK
from delta_attnmask.modeling.rounding import INTO_LAST, Rounding
from delta_attnmask.settings import AttentionBackend

# How many times as far as rounding moves the losses they may differ. Measured over 63 families and SmolLM2-135M in
# bfloat16 and float16: replays 0; other attention kernels up to 2; the last block on single rows up to 0.8 where it
# treats rows alone, and 3 or more where 5 % of a neighbour leaks in.
_REPLAY, _KERNELS, _ROWS = 0.5, 4.0, 2.0
_N_PROBES = 64  # tokens of a sample that are compared
_LOSS_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}

_checked: WeakKeyDictionary[nn.Module, dict[Hashable, "SelfCheck"]] = WeakKeyDictionary()


@dataclass(frozen=True)
class SelfCheck:
    """What was found in a model, and how well its replay agrees.

    replay_error: largest difference in nats between the losses of a forward and of its replayed tail.
    loss_error: difference in nats between the captured losses and the untouched model's, mean over the tokens.
    runs_on_rows: whether the last block may be run again on the positions that are read alone.
    """

    decoder_path: str
    n_blocks: int
    n_recorded: int
    backend: str
    replay_error: float
    loss_error: float
    runs_on_rows: bool = False

    def __str__(self) -> str:
        replay = "exact" if self.replay_error == 0 else f"within {self.replay_error:.1e}"
        return (
            f"decoder {self.decoder_path or '(the model)'}, {self.n_recorded} of {self.n_blocks} blocks recorded, "
            f"attention {self.backend}, replay {replay}, loss within {self.loss_error:.1e} of the untouched model"
        )


def checked_anatomy(
    anatomy: Anatomy, inputs: Mapping[str, Any], labels: Tensor, attention: AttentionBackend = "auto"
) -> Anatomy:
    """The anatomy with what a self-check found, which is made now if the model had none yet in this state."""
    return replace(anatomy, runs_on_rows=self_check(anatomy, inputs, labels, attention).runs_on_rows)


def self_check(
    anatomy: Anatomy, inputs: Mapping[str, Any], labels: Tensor, attention: AttentionBackend = "auto"
) -> SelfCheck:
    """What `check_model` found at the first batch of this model, as it is now, under this attention backend.

    Locked as captured forwards are: another thread's would meet the noise that a check adds to the blocks' outputs, and
    its replaced forwards would look like another state of the model here.
    """
    with REGISTRY_LOCK:
        checks, key = _checked.setdefault(anatomy.model, {}), (attention, _state_of(anatomy))
        if key not in checks:
            checks[key] = check_model(anatomy, inputs, labels, attention)
        return checks[key]


def _state_of(anatomy: Anatomy) -> Hashable:
    """What may change in a loaded model and makes it another to check: cheap, since it is asked for each batch."""
    modules = tuple((id(module), type(module), "forward" in vars(module)) for module in anatomy.blocks.modules())
    weights = tuple((w.dtype, w.device) for block in anatomy.blocks for w in islice(block.parameters(), 1))
    return anatomy.decoder_config._attn_implementation, weights, modules


def tolerance(dtype: torch.dtype) -> float:
    """How far two losses in nats may differ by rounding in another order."""
    return _LOSS_TOLERANCE.get(dtype, 1e-4)


def probe_labels(anatomy: Anatomy, inputs: Mapping[str, Any], labels: Tensor) -> Tensor:
    """Labels for the tokens that are compared: spread over each sample's text, never two side by side; `[batch, seq]`.

    A sample without any, or inputs without token ids, keep the labels that they have.
    """
    input_ids = inputs.get("input_ids")
    if input_ids is None:
        return labels
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    vocabulary = anatomy.model.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
    is_text = roles.is_token & ~roles.is_image & (input_ids >= 0) & (input_ids < vocabulary)
    step = (is_text.sum(-1, keepdim=True) // _N_PROBES).clamp(min=2)
    number = is_text.cumsum(-1)
    is_probe = is_text & (number > 1) & (number % step == 1)
    return torch.where(is_probe.any(-1, keepdim=True), input_ids.masked_fill(~is_probe, IGNORED_LABEL), labels)


def check_model(
    anatomy: Anatomy, inputs: Mapping[str, Any], labels: Tensor, attention: AttentionBackend = "auto"
) -> SelfCheck:
    """Replay the unmasked tail of blocks that may be masked, and compare with the untouched model.

    Raises UnsupportedModelError where the two differ by more than rounding, DataError where the untouched model gives
    no finite loss to compare with.
    """
    probes = probe_labels(anatomy, inputs, labels)
    rounding = Rounding(anatomy, inputs, probes)
    if not rounding.losses.isfinite().any():
        raise DataError("the loss is not finite")
    last = min(anatomy.last_block, max(0, anatomy.n_blocks - 2))  # only a norm comes after the last block
    whole = _probe(anatomy, inputs, probes, attention, [0, last // 2, last])
    losses = _differences(whole.losses, rounding.losses)
    check = SelfCheck(
        decoder_path=anatomy.decoder_path,
        n_blocks=anatomy.n_blocks,
        n_recorded=whole.n_recorded,
        backend=whole.backend,
        replay_error=float(whole.replays.abs().max()) if len(whole.replays) else 0.0,
        loss_error=float(losses.abs().mean()),
    )
    name = type(anatomy.model).__name__
    if not rounding.allows(whole.replays, _REPLAY):
        raise UnsupportedModelError(
            f"{name}: running the tail of its decoder again gives other losses ({check}); "
            "its scores would be wrong, so it is refused (docs/add-a-model.md)"
        )
    if not rounding.allows(losses, _KERNELS):
        raise UnsupportedModelError(
            f"{name}: reading its attention changes its loss ({check}); its scores would be wrong, so it is refused; "
            'try it loaded with attn_implementation="eager", or see docs/add-a-model.md'
        )
    try:
        rows = _probe(replace(anatomy, runs_on_rows=True), inputs, probes, attention, [last])
    except (RuntimeError, ValueError, TypeError, IndexError, UnsupportedModelError) as error:
        if isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
            raise
        return check  # it can't take rows alone
    differences = torch.cat([_differences(rows.losses, whole.losses), _differences(rows.masked, whole.masked)])
    is_exact = rounding.allows(rows.replays, _REPLAY) and rounding.allows(differences, _ROWS, INTO_LAST)
    return replace(check, runs_on_rows=is_exact)


@dataclass(frozen=True)
class _Probe:
    """What one captured forward gave, in nats.

    losses: `[row]`. masked: under a mask, `[row]`, or none where none can be set.
    replays: by how much the losses of replayed tails differ from its own, where these are finite.
    """

    losses: Tensor
    masked: Tensor
    replays: Tensor
    n_recorded: int
    backend: str


def _probe(
    anatomy: Anatomy, inputs: Mapping[str, Any], labels: Tensor, attention: AttentionBackend, blocks: Sequence[int]
) -> _Probe:
    """blocks: whose tails are replayed; the last of them is masked too."""
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    is_masked = roles.is_token & (torch.arange(labels.shape[1], device=labels.device) % 3 == 1)
    last, weights = blocks[-1], roles.is_token[:, None].float()
    with captured_forward(anatomy, inputs, labels, roles, weights, blocks, attention) as forward:
        losses = forward.token_losses(forward.final_rows())
        tails = [forward.run_tail(block, forward.states[block]) for block in blocks]
        replays = [
            _differences(losses if torch.equal(rows, forward.final_rows()) else forward.token_losses(rows), losses)
            for rows in tails
        ]
        masked = losses[:0]
        if last >= forward.first_block:
            fill = forward.states[last].mean(-2, keepdim=True)
            masked = forward.token_losses(forward.run_masked(last, is_masked, fill))
        return _Probe(losses, masked, torch.cat(replays), forward.n_recorded, forward.backend)


def _differences(found: Tensor, expected: Tensor) -> Tensor:
    """`found - expected` where that is finite; NaN where only `found` isn't."""
    return (found.cpu() - expected.cpu())[expected.cpu().isfinite()]

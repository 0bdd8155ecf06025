"""What the model gets, and what each position of it is.

Dimensions, spelled the same everywhere:
    batch   samples that run together
    seq     positions of the longest sample, padding included
    hidden  width of a hidden state
    head    query heads of a block
    pool    ways of counting queries ("all", "answer")
    row     answer positions of all samples of the batch, one after the other
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from delta_attnmask.errors import DataError

IGNORED_LABEL = -100


@dataclass(frozen=True)
class TokenRoles:
    """Boolean masks `[batch, seq]`; True means that the position has the role."""

    is_token: Tensor  # not padding
    is_answer: Tensor  # counted in the loss
    is_image: Tensor  # an image placeholder
    is_special: Tensor  # structure of the prompt, not text

    @classmethod
    def of(
        cls,
        inputs: Mapping[str, Any],
        labels: Tensor,
        image_token_id: int | None,
        special_ids: Iterable[int] = (),
    ) -> "TokenRoles":
        """Read the roles off the model's inputs and unshifted labels."""
        attention_mask, input_ids = inputs.get("attention_mask"), inputs.get("input_ids")
        is_token = torch.ones_like(labels, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        is_image = inputs.get("image_embeds_position_mask", torch.zeros_like(is_token)).bool()  # Kosmos
        if image_token_id is not None and input_ids is not None:
            is_image = is_token & (input_ids == image_token_id)
        is_special = torch.zeros_like(is_token)
        if input_ids is not None:
            is_special = is_token & ~is_image & torch.isin(input_ids, input_ids.new_tensor(list(special_ids)))
        is_answer = is_token & (labels != IGNORED_LABEL)
        is_answer[:, 0] = False  # no position predicts the first token
        return cls(is_token, is_answer, is_image, is_special)

    @property
    def is_first(self) -> Tensor:
        """True at each sample's first token."""
        return self.is_token & (self.is_token.cumsum(-1) == 1)

    @property
    def predicts_answer(self) -> Tensor:
        """True where the next position is an answer token: the queries whose output the loss reads."""
        shifted = torch.zeros_like(self.is_answer)
        shifted[:, :-1] = self.is_answer[:, 1:]
        return shifted & self.is_token

    def targets(self, labels: Tensor) -> Tensor:
        """The token that each position in `predicts_answer` should predict; `[row]`, int64."""
        return labels[:, 1:][self.predicts_answer[:, :-1]].long()

    def mean_by_sample(self, token_losses: Tensor) -> Tensor:
        """Average `[row]` over each sample's answer tokens; `[batch]`, float32."""
        grid = torch.zeros(self.is_token.shape, dtype=torch.float32, device=self.is_token.device)
        grid[self.predicts_answer] = token_losses.float().to(grid.device)
        return grid.sum(-1) / self.predicts_answer.sum(-1)

    def pool(self, states: Tensor) -> Tensor:
        """Mean over each sample's tokens but the first, at length 1; `[batch, hidden]`, float32.

        The first token draws attention whatever it is, and its huge state would make all samples look the same.

        states: `[..., batch, seq, hidden]`; of models with several streams the first one counts.
        """
        stream = states.reshape(-1, *states.shape[-3:])[0].float()
        is_pooled = (self.is_token & ~self.is_first).to(stream.device)
        return normalize((stream * is_pooled[..., None]).sum(1), dim=-1)

    def require_answers(self) -> None:
        """Raise DataError where a sample has no token that the loss reads."""
        if without := (~self.predicts_answer.any(-1)).nonzero().flatten().tolist():
            raise DataError(
                f"samples {without} of the batch have no answer token; labels must mark at least one "
                "token after the first"
            )


@dataclass(frozen=True)
class EncodedBatch:
    """Samples ready for the model.

    inputs: what the model's forward takes; `input_ids` and `attention_mask` are `[batch, seq]`.
    labels: `[batch, seq]`, unshifted; -100 where a position is no answer token.
    rows: which input row each sample is.
    image_of: for each image, in the batch's order, the index of the first one that equals it, so that each is encoded
        once; None where that isn't known.
    """

    inputs: Mapping[str, Any]
    labels: Tensor
    rows: tuple[int, ...]
    image_of: tuple[int, ...] | None = None

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "EncodedBatch":
        """Move to a device; floating inputs (pixels) are cast to `dtype`."""
        moved = {name: _move(value, device, dtype) for name, value in self.inputs.items()}
        return EncodedBatch(moved, _move(self.labels, device, None), self.rows, self.image_of)


def _move(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    if not isinstance(value, Tensor):
        return value
    target = dtype if dtype is not None and value.is_floating_point() else value.dtype
    if device.type == "cuda" and value.device.type == "cpu":  # out of pinned memory the copy doesn't hold up anything
        return value.to(target).pin_memory().to(device, non_blocking=True)
    return value.to(device, target, non_blocking=True)


def require_fitting(inputs: Mapping[str, Any], labels: Tensor) -> None:
    """Raise DataError, with the fix, where these can't be a model's inputs and the labels of their tokens."""
    if not isinstance(inputs, Mapping):
        raise DataError(
            f"inputs: expected a mapping of the forward's arguments, got {type(inputs).__name__}; give "
            "{'input_ids': input_ids, 'attention_mask': attention_mask, ...}, or what the processor returns"
        )
    if "labels" in inputs:
        raise DataError(
            "inputs hold 'labels', with which the model would compute its own loss; give them as the argument "
            "`labels` and take them out: labels = inputs.pop('labels')"
        )
    names = ("input_ids", "attention_mask", "inputs_embeds")
    given = {"labels": labels} | {name: inputs[name] for name in names if inputs.get(name) is not None}
    if not given.keys() & {"input_ids", "inputs_embeds"}:
        raise DataError(f"inputs: expected 'input_ids' among them, got {sorted(inputs)}; give the tokens' ids")
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise DataError(f"{name}: expected a tensor, got {type(value).__name__}; give torch.as_tensor({name})")
        is_whole = not (value.dtype == torch.bool or value.is_floating_point() or value.is_complex())
        if name in ("labels", "input_ids") and not is_whole:
            raise DataError(f"{name}: expected token ids as integers, got {value.dtype}")
        if labels.ndim != 2:
            raise DataError(
                f"labels: expected the shape [batch, seq], got {list(labels.shape)}; one sample is a batch of one: "
                "labels[None]"
            )
        shape = value.shape[:-1] if name == "inputs_embeds" else value.shape
        if shape != labels.shape:
            raise DataError(
                f"labels: expected the shape of {name}, {list(shape)}, got {list(labels.shape)}; labels are unshifted, "
                "one for each token with the prompt and the padding, -100 where a position is no answer token"
            )
        if value.device != labels.device:
            raise DataError(
                f"labels are on {labels.device}, {name} on {value.device}; move all of them to the model's device: "
                f"labels.to({str(value.device)!r})"
            )

"""What a caller may hand to `score_batch`; all else is refused in words before the model runs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import DataError, UnsupportedModelError


def require_scorable(model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> None:
    """Raise UnsupportedModelError for a model of another library, DataError for inputs and labels that don't fit."""
    if not (isinstance(model, nn.Module) and hasattr(model, "config") and _has_pretrained(model)):
        raise UnsupportedModelError(
            f"{type(model).__name__}: expected a Hugging Face PreTrainedModel or a PEFT model around one; "
            "hand over the model that DDP or another wrapper holds (often `model.module`)"
        )
    if "labels" in inputs:
        raise DataError(
            "inputs hold 'labels', with which the model would compute its own loss; give them as the argument "
            "`labels` and take them out: labels = inputs.pop('labels')"
        )
    _require_labels(labels)
    _require_shape(inputs, labels)
    _require_answers(inputs, labels)


def _has_pretrained(model: nn.Module) -> bool:
    return any(isinstance(module, PreTrainedModel) for module in model.modules())


def _require_labels(labels: Any) -> None:
    if not isinstance(labels, Tensor):
        raise DataError(f"labels: expected an integer tensor [batch, seq], got {type(labels).__name__}")
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"labels: expected token ids as integers (-100 where a position is no answer token), got {labels.dtype}"
        )
    if labels.ndim != 2:
        raise DataError(
            f"labels: expected the shape [batch, seq], got {list(labels.shape)}; one sample is a batch of one: "
            "labels[None]"
        )


def _require_shape(inputs: Mapping[str, Any], labels: Tensor) -> None:
    """Tensors with one value a token must be of the labels' shape."""
    embeds = inputs.get("inputs_embeds")
    given = {name: inputs[name].shape for name in ("input_ids", "attention_mask") if inputs.get(name) is not None}
    given |= {} if embeds is None else {"inputs_embeds": embeds.shape[:-1]}
    for name, shape in given.items():
        if shape != labels.shape:
            raise DataError(
                f"labels: expected the shape of {name}, {list(shape)}, got {list(labels.shape)}; labels are unshifted, "
                "one for each token with the prompt and the padding, -100 where a position is no answer token"
            )


def _require_answers(inputs: Mapping[str, Any], labels: Tensor) -> None:
    has_answer = TokenRoles.of(inputs, labels, None).predicts_answer.any(-1)
    if without := (~has_answer).nonzero().flatten().tolist():
        raise DataError(
            f"samples {without} of the batch have no answer token; labels must mark at least one that another token "
            "comes before"
        )

"""What doesn't fit is refused in words, before the model runs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from delta_attnmask import DataError, DeltaAttnMaskError, UnsupportedModelError, score_batch
from delta_attnmask.scoring.delta import loss_batch
from tests.families import FAMILIES
from tests.families.family import IGNORED

Batch = tuple[dict[str, Any], Tensor]


def with_labels(inputs: dict[str, Any], labels: Tensor) -> Batch:
    return inputs | {"labels": labels}, labels


def without_answer(inputs: dict[str, Any], labels: Tensor) -> Batch:
    return inputs, torch.stack([labels[0], torch.full_like(labels[1], IGNORED)])


def with_first_token_alone(inputs: dict[str, Any], labels: Tensor) -> Batch:
    labels = torch.full_like(labels, IGNORED)
    labels[:, 0] = inputs["input_ids"][:, 0]
    return inputs, labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_labels, r"inputs hold 'labels'.*labels = inputs.pop\('labels'\)"),
        (lambda inputs, labels: (inputs, labels.tolist()), "labels: expected a tensor, got list"),
        (
            lambda inputs, labels: (inputs, labels[0]),
            r"expected the shape \[batch, seq\], got \[\d+\]; .*labels\[None\]",
        ),
        (lambda inputs, labels: (inputs, labels[:, None]), r"expected the shape \[batch, seq\], got \[2, 1, \d+\]"),
        (lambda inputs, labels: (inputs, labels[:1]), r"the shape of input_ids, \[2, (\d+)\], got \[1, \1\]"),
        (lambda inputs, labels: (inputs, labels[:, 1:]), r"the shape of input_ids, .*labels are unshifted"),
        (lambda inputs, labels: (inputs, labels.float()), "labels: expected token ids as integers, got torch.float32"),
        (lambda inputs, labels: (inputs, labels != IGNORED), "labels: expected token ids as integers, got torch.bool"),
        (
            lambda inputs, labels: (inputs | {"attention_mask": inputs["attention_mask"][:, 1:]}, labels),
            "the shape of attention_mask",
        ),
        (lambda inputs, labels: (inputs["input_ids"], labels), r"expected a mapping .*got Tensor; give \{'input_ids'"),
        (lambda inputs, labels: ({"pixel_values": inputs["pixel_values"]}, labels), "expected 'input_ids' among them"),
        (
            lambda inputs, labels: (inputs | {"input_ids": inputs["input_ids"].float()}, labels),
            "input_ids: expected token ids as integers, got torch.float32",
        ),
        (
            lambda inputs, labels: (inputs | {"attention_mask": inputs["attention_mask"].tolist()}, labels),
            r"attention_mask: expected a tensor, got list; give torch.as_tensor\(attention_mask\)",
        ),
        (
            lambda inputs, labels: (inputs, labels.to("meta")),
            r"labels are on meta, input_ids on cpu; .*labels.to\('cpu'\)",
        ),
        (without_answer, r"samples \[1\] of the batch have no answer token"),
        (with_first_token_alone, r"samples \[0, 1\] of the batch have no answer token"),
    ],
)
def test_inputs_and_labels_that_do_not_fit(change: Callable[..., Batch], message: str) -> None:
    model = FAMILIES["LLaVA"].build()
    inputs, labels = change(*FAMILIES["LLaVA"].inputs())
    for score in (score_batch, loss_batch):
        with pytest.raises(DataError, match=message):
            score(model, inputs, labels)


@pytest.mark.parametrize(
    "change",
    [
        lambda inputs: {"input_ids": inputs["input_ids"] + 10_000},
        lambda inputs: {"pixel_values": inputs["pixel_values"][:1]},
    ],
    ids=["unknown tokens", "an image too few"],
)
def test_inputs_that_the_model_fails_on(change: Callable[..., dict[str, Any]]) -> None:
    model, (inputs, labels) = FAMILIES["LLaVA"].build(), FAMILIES["LLaVA"].inputs()
    with pytest.raises(DeltaAttnMaskError):
        score_batch(model, inputs | change(inputs), labels)
    score_batch(model, inputs, labels)
    with pytest.raises(DeltaAttnMaskError):
        score_batch(model, inputs | change(inputs), labels)


class Wrapper(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, **inputs: Any) -> Any:
        return self.module(**inputs)


def test_models_of_another_kind() -> None:
    batch = FAMILIES["Llama"].inputs()
    for model in (nn.Linear(2, 2), Wrapper(FAMILIES["Llama"].build()), "a name"):
        with pytest.raises(UnsupportedModelError, match="expected a Hugging Face PreTrainedModel or a PEFT model"):
            score_batch(model, *batch)  # type: ignore[arg-type]


def test_labels_of_any_integers_and_inputs_without_a_mask_are_taken() -> None:
    model = FAMILIES["Llama"].build()
    inputs, labels = FAMILIES["Llama"].inputs("none", (0,))
    expected = score_batch(model, inputs, labels)
    assert torch.equal(score_batch(model, {"input_ids": inputs["input_ids"]}, labels.int()).delta, expected.delta)

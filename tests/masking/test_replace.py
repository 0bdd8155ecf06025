"""What a masked hidden state becomes."""

import pytest
import torch

from delta_attnmask.masking import replace_states, replacement_state
from delta_attnmask.settings import Replacement

STATES = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]], [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]])
IS_TOKEN = torch.tensor([[True, True, False], [True, True, True]])
IS_MASKED = torch.tensor([[False, True, False], [True, False, True]])


def test_zero() -> None:
    expected = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [100.0, 100.0]], [[0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]])
    assert torch.equal(replace_states(STATES, IS_MASKED, IS_TOKEN, "zero"), expected)


def test_mean_is_of_each_samples_own_tokens() -> None:
    expected = torch.tensor([[[1.0, 2.0], [2.0, 4.0], [100.0, 100.0]], [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]])
    assert torch.equal(replace_states(STATES, IS_MASKED, IS_TOKEN, "mean"), expected)


def test_the_states_given_are_not_changed_and_what_is_not_masked_stays_bit_by_bit() -> None:
    before = STATES.clone()
    for replacement in ("zero", "mean"):
        replaced = replace_states(STATES, IS_MASKED, IS_TOKEN, replacement)  # type: ignore[arg-type]
        assert torch.equal(STATES, before)
        assert torch.equal(replaced[~IS_MASKED], STATES[~IS_MASKED])


def test_leading_dimensions_are_treated_alike() -> None:
    streams = torch.stack([STATES, 2 * STATES])
    for replacement in ("zero", "mean"):
        both = replace_states(streams, IS_MASKED, IS_TOKEN, replacement)  # type: ignore[arg-type]
        for stream, expected in zip(both, streams, strict=True):
            assert torch.equal(stream, replace_states(expected, IS_MASKED, IS_TOKEN, replacement))  # type: ignore[arg-type]


def test_the_mean_of_half_precision_states_is_taken_in_full() -> None:
    states = torch.full((1, 4096, 2), 1.001, dtype=torch.bfloat16)
    everywhere = torch.ones(1, 4096, dtype=torch.bool)
    replaced = replace_states(states, everywhere, everywhere, "mean")
    assert replaced.dtype == torch.bfloat16
    assert torch.equal(replaced, states)


@pytest.mark.parametrize("replacement", ["zero", "mean"])
def test_states_may_be_on_another_device_than_the_masks(replacement: Replacement) -> None:
    elsewhere = STATES.to("meta")
    assert replacement_state(elsewhere, IS_TOKEN, replacement).device.type == "meta"
    assert replace_states(elsewhere, IS_MASKED, IS_TOKEN, replacement).shape == STATES.shape


def test_infinite_states_can_be_zeroed() -> None:
    states = STATES.clone()
    states[0, 1] = torch.inf
    assert replace_states(states, IS_MASKED, IS_TOKEN, "zero").isfinite().all()

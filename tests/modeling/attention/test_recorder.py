"""The attention function that stands in for a model's own."""

import pytest
import torch
from torch import nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.modeling.attention.received import AttentionBackend
from delta_attnmask.modeling.attention.recorder import AttentionRecorder


@pytest.mark.parametrize("backend", ["plain", "fused"])
def test_a_query_gives_away_all_of_its_attention_under_autocast(backend: AttentionBackend) -> None:
    """Queries and keys are in float32 there, values in bfloat16: shares and their sum must come of the same scores."""
    block = nn.Linear(1, 1)
    roles = TokenRoles.of({}, torch.zeros(2, 40, dtype=torch.long), None)
    weights = torch.zeros(2, 1, 40)
    weights[..., -1] = 1  # the last query alone
    recorder = AttentionRecorder(nn.ModuleList([block]), weights, roles, backend)
    recorder.is_recording = True
    query, key, value = 4 * torch.randn(3, 2, 4, 40, 32, generator=torch.Generator().manual_seed(0))
    output, _ = recorder(block, query, key, value.bfloat16(), None, is_causal=True)
    assert output.dtype == torch.bfloat16
    given = recorder.received.mean().sum(-1)
    assert (given - 1).abs().max() < 1e-3

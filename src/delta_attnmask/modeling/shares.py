"""Where each decoder block's attention goes: its entropy, and its shares on groups of tokens.

Read off the maps of the model's own eager attention, one block at a time; no map outlives its block.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.recorder import REGISTRY_LOCK
from delta_attnmask.modeling.running import evaluating, run_up_to

MEASURES = ("entropy", "image", "question", "sink", "answer_to_image")
_QUERIES_PER_CHUNK = 256


def read_shares(anatomy: Anatomy, inputs: Mapping[str, Any], roles: TokenRoles) -> Tensor:
    """Run one forward in eager attention and measure the map of every block that has one; padding is left out.

    Returns `[block, batch, measure]`, float32, on the CPU, measures as in MEASURES:
    entropy: of a position's attention over the tokens that it sees, in nats, mean over heads and positions.
    image, question, sink: share of all positions' attention on image tokens; on text of the prompt that is no special
        token; on each sample's first token and special tokens.
    answer_to_image: share on image tokens of the positions that predict an answer token.

    Memory: one block's maps `[batch, head, seq, seq]`. Raises UnsupportedModelError where no block gives a map.
    """
    shares: dict[int, Tensor] = {}
    config = anatomy.decoder_config
    implementation = config._attn_implementation
    with ExitStack() as stack:
        stack.enter_context(REGISTRY_LOCK)
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(anatomy))
        stack.callback(setattr, config, "_attn_implementation", implementation)
        config._attn_implementation = "eager"
        for index, block in enumerate(anatomy.blocks):
            for module in block.modules():
                hook = module.register_forward_hook(partial(_measure_and_drop, shares, index, roles))
                stack.callback(hook.remove)
        run_up_to(anatomy.model, inputs, anatomy.model.get_output_embeddings())  # type: ignore[operator]
    if not shares:
        raise UnsupportedModelError(
            f"{type(anatomy.model).__name__}: none of its decoder blocks gives its attention map under eager attention"
        )
    return torch.stack([shares[index].cpu() for index in sorted(shares)])


def _measure_and_drop(
    shares: dict[int, Tensor], index: int, roles: TokenRoles, _module: nn.Module, _args: Any, output: Any
) -> Any:
    """Measure the map among a module's outputs, and return the outputs without it."""
    if not isinstance(output, tuple):
        return None
    n_tokens = roles.is_token.shape[1]
    is_map = [isinstance(item, Tensor) and item.ndim == 4 and item.shape[-2:] == (n_tokens,) * 2 for item in output]
    if not any(is_map):
        return None
    shares[index] = _measure(output[is_map.index(True)], roles)
    return tuple(None if dropped else item for item, dropped in zip(output, is_map, strict=True))


def _measure(maps: Tensor, roles: TokenRoles) -> Tensor:
    """The measures of one block's maps `[batch, head, query, key]`, in the order of MEASURES; `[batch, measure]`."""
    roles = TokenRoles(*(mask.to(maps.device) for mask in vars(roles).values()))
    is_sink = roles.is_first | roles.is_special
    is_question = roles.is_token & ~roles.is_image & ~roles.is_answer & ~is_sink
    groups = torch.stack([roles.is_image, is_question, is_sink], dim=-1).float()
    entropy, on_groups = [], []
    for chunk in torch.split(maps, _QUERIES_PER_CHUNK, dim=2):
        shares = chunk.float()
        entropy.append(torch.special.entr(shares).sum(-1).mean(1))
        on_groups.append((shares @ groups[:, None]).mean(1))
    by_query = torch.cat([torch.cat(entropy, dim=1)[..., None], torch.cat(on_groups, dim=1)], dim=-1)
    everywhere, of_answer = (_mean(by_query, queries) for queries in (roles.is_token, roles.predicts_answer))
    return torch.cat([everywhere, of_answer[:, 1:2]], dim=-1)


def _mean(by_query: Tensor, is_counted: Tensor) -> Tensor:
    weights = is_counted[..., None].float()
    return (by_query * weights).sum(1) / weights.sum(1)

"""Where each decoder block's attention goes: its entropy, and its shares on groups of tokens.

Read off the maps of the model's own eager attention, one block at a time; no map outlives its block.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.recorder import REGISTRY_LOCK
from delta_attnmask.modeling.running import run_up_to

MEASURES = ("entropy", "image", "question", "sink", "answer_to_image")
_QUERIES_PER_CHUNK = 256


@dataclass
class BlockShares:
    """What was read of each block that has a map, by its index; `[batch, measure]` each, measures as in MEASURES.

    entropy: of a position's attention over the tokens that it sees, in nats, mean over heads and positions.
    image, question, sink: share of all positions' attention on image tokens; on text of the prompt that is no special
        token; on each sample's first token and special tokens.
    answer_to_image: share on image tokens of the positions that predict an answer token.
    """

    by_block: dict[int, Tensor] = field(default_factory=dict)

    def stack(self) -> Tensor:
        """`[block, batch, measure]`, float32, on the CPU."""
        return torch.stack([self.by_block[index].cpu() for index in sorted(self.by_block)])


def read_shares(anatomy: Anatomy, inputs: Mapping[str, Any], roles: TokenRoles) -> BlockShares:
    """Run one forward in eager attention and measure every block's map; padding is left out.

    Memory: one block's maps `[batch, head, seq, seq]`. Raises UnsupportedModelError where no block gives a map.
    """
    shares = BlockShares()
    head = anatomy.model.get_output_embeddings()  # type: ignore[operator]
    with ExitStack() as stack:
        stack.enter_context(REGISTRY_LOCK)
        stack.enter_context(torch.no_grad())
        stack.enter_context(_eager(anatomy))
        for index, block in enumerate(anatomy.blocks):
            for module in block.modules():
                hook = module.register_forward_hook(partial(_measure_and_drop, shares, index, roles))
                stack.callback(hook.remove)
        run_up_to(anatomy.model, inputs, head)
    if not shares.by_block:
        raise UnsupportedModelError(
            f"{type(anatomy.model).__name__}: none of its decoder blocks gives its attention map under eager attention"
        )
    return shares


def _measure_and_drop(
    shares: BlockShares, index: int, roles: TokenRoles, _module: nn.Module, _args: Any, output: Any
) -> Any:
    """Measure the map among a module's outputs, and return the outputs without it."""
    if not isinstance(output, tuple):
        return None
    n_tokens = roles.is_token.shape[1]
    is_map = [isinstance(item, Tensor) and item.ndim == 4 and item.shape[-2:] == (n_tokens,) * 2 for item in output]
    if not any(is_map):
        return None
    shares.by_block[index] = measure(output[is_map.index(True)], roles)
    return tuple(None if dropped else item for item, dropped in zip(output, is_map, strict=True))


def measure(maps: Tensor, roles: TokenRoles) -> Tensor:
    """The measures of one block's maps `[batch, head, query, key]`, in the order of MEASURES; `[batch, measure]`."""
    roles = _on(roles, maps.device)
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


def _on(roles: TokenRoles, device: torch.device) -> TokenRoles:
    return TokenRoles(*(mask.to(device) for mask in _masks(roles)))


def _masks(roles: TokenRoles) -> Sequence[Tensor]:
    return roles.is_token, roles.is_answer, roles.is_image, roles.is_special


@contextmanager
def _eager(anatomy: Anatomy) -> Iterator[None]:
    """The decoder alone in eager attention, in evaluation mode."""
    config = anatomy.decoder_config
    implementation = config._attn_implementation
    training = [module for module in anatomy.model.modules() if module.training]
    config._attn_implementation = "eager"
    anatomy.model.eval()
    try:
        yield
    finally:
        config._attn_implementation = implementation
        for module in training:
            module.training = True

"""Where a Hugging Face model keeps the parts that scoring needs: decoder, blocks, head.

Found by structure, not by class name, so that new families need no code here.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from delta_attnmask.errors import SettingsError, UnsupportedModelError

_IMAGE_TOKEN_NAMES = ("image_token_id", "image_token_index", "image_token", "img_token_id")


@dataclass(frozen=True)
class Anatomy:
    """The parts of one loaded model.

    modules: all of them, the model itself first.
    decoder: the module whose forward runs through `blocks` and the final norm.
    head_owner: the module whose forward calls one of `backbones` and turns its states into logits.
    backbones: the modules on the way from `head_owner` down to the decoder, itself included (OPT calls the last).
    last_block: the last block that may be masked; limit_reason says why not all.
    runs_on_rows: whether the last block may be run again on the positions that are read alone, as a self-check found.
    """

    model: nn.Module
    modules: Sequence[nn.Module] = field(repr=False)
    decoder: nn.Module
    decoder_path: str
    blocks: nn.ModuleList
    head_owner: nn.Module
    backbones: tuple[nn.Module, ...]
    image_token_id: int | None
    last_block: int
    limit_reason: str
    runs_on_rows: bool = False

    @property
    def n_blocks(self) -> int:
        return len(self.blocks)

    @property
    def middle_block(self) -> int:
        """The block whose output is pooled into embeddings."""
        return (self.n_blocks - 1) // 2

    @property
    def decoder_config(self) -> Any:
        return text_config(self.model)

    def resolve_block(self, block: int) -> int:
        """The index of the masked block from 0, clamped below blocks that reuse keys of earlier ones.

        Raises SettingsError where the model has no such block.
        """
        index = self._index(block)
        if not 0 <= index < self.n_blocks:
            raise SettingsError(
                f"block={block}: this model has {self.n_blocks} blocks, 0 to {self.n_blocks - 1}; give one of them, "
                f"or count from the end: {-self.n_blocks} to -1"
            )
        return min(index, self.last_block)

    def has_block(self, block: int) -> bool:
        """Whether `block` exists and can be masked as it is."""
        return 0 <= self._index(block) <= self.last_block

    def describe_block(self, block: int) -> str:
        """Which block is masked when `block` is asked for, and why another if so."""
        index, resolved = self._index(block), self.resolve_block(block)
        clamped = f" instead of {index}, since {self.limit_reason}" if resolved != index else ""
        return f"masking the output of block {resolved}{clamped}"

    def _index(self, block: int) -> int:
        return block + self.n_blocks if block < 0 else block


def examine(model: nn.Module) -> Anatomy:
    """Find the parts of `model`; raises UnsupportedModelError with what is missing."""
    modules = list(model.modules()) if isinstance(model, nn.Module) and hasattr(model, "config") else []
    if not any(isinstance(module, PreTrainedModel) for module in modules):
        raise UnsupportedModelError(
            f"{type(model).__name__}: expected a Hugging Face PreTrainedModel or a PEFT model around one; "
            "give the model that DDP or another wrapper holds (often `model.module`)"
        )
    config = text_config(model)
    n_blocks = getattr(config, "num_hidden_layers", None)
    if not isinstance(n_blocks, int):
        raise UnsupportedModelError(
            f"{type(model).__name__}: its configuration names no num_hidden_layers of a decoder"
        )
    decoder, blocks = _find_blocks(model, n_blocks)
    head_owner, backbones = _find_head(model, decoder)
    last, reason = _last_block(config, n_blocks)
    return Anatomy(
        model=model,
        modules=modules,
        decoder=decoder,
        decoder_path=next(name for name, module in model.named_modules() if module is decoder),
        blocks=blocks,
        head_owner=head_owner,
        backbones=backbones,
        image_token_id=_image_token_id(model.config),
        last_block=last,
        limit_reason=reason,
    )


def owner_of(model: nn.Module, method: str) -> nn.Module | None:
    """The innermost module whose class has the method; None where there is none."""
    owners = [module for module in model.modules() if hasattr(type(module), method)]
    return owners[-1] if owners else None


def text_config(model: nn.Module) -> Any:
    config: Any = model.config
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def _find_blocks(model: nn.Module, n_blocks: int) -> tuple[nn.Module, nn.ModuleList]:
    """The shallowest list of so many blocks, and the module that holds it."""
    get_decoder = getattr(model, "get_decoder", None)
    root = get_decoder() if callable(get_decoder) else model
    queue = deque([root if isinstance(root, nn.Module) else model])
    while queue:
        parent = queue.popleft()
        for child in parent.children():
            if isinstance(child, nn.ModuleList) and len(child) == n_blocks:
                return parent, child
        queue.extend(parent.children())
    raise UnsupportedModelError(f"{type(model).__name__}: no list of {n_blocks} decoder blocks was found in it")


def _find_head(model: nn.Module, decoder: nn.Module) -> tuple[nn.Module, tuple[nn.Module, ...]]:
    get_head: Any = getattr(model, "get_output_embeddings", None)
    head = get_head() if callable(get_head) else None
    if head is None:
        raise UnsupportedModelError(f"{type(model).__name__}: it has no language-model head; load it with one")
    owner = next(parent for parent in model.modules() if any(child is head for child in parent.children()))
    path = next((name for name, module in owner.named_modules() if module is decoder), None)
    if not path:
        raise UnsupportedModelError(f"{type(model).__name__}: its head and its decoder don't share a module")
    names = path.split(".")
    return owner, tuple(owner.get_submodule(".".join(names[: n + 1])) for n in range(len(names)))


def _image_token_id(config: Any) -> int | None:
    for part in (config, getattr(config, "vision_config", None)):
        for name in _IMAGE_TOKEN_NAMES:
            if isinstance(token := getattr(part, name, None), int):
                return token
    return None


def _last_block(config: Any, n_blocks: int) -> tuple[int, str]:
    """The last block whose masking reaches every block that stores keys for later ones, and why it isn't the last."""
    n_shared = getattr(config, "num_kv_shared_layers", 0) or 0
    if not n_shared:
        return n_blocks - 1, ""
    kinds = list(config.layer_types)[: n_blocks - n_shared]
    storing = [max(i for i, kind in enumerate(kinds) if kind == wanted) for wanted in set(kinds)]
    return max(0, min(storing) - 1), f"the last {n_shared} blocks reuse keys of earlier ones"

"""The attention function that stands in for the model's own: same output, and it sums what each token receives."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.modeling.attention.fused import fused_attend
from delta_attnmask.modeling.attention.plain import attend, column_sums

AttentionFunction = Callable[..., tuple[Tensor, Any]]


class AttentionRecorder:
    """Callable with the signature of transformers' attention functions.

    Modules outside the decoder (vision towers use the same registry) and attention onto other sequences
    (cross-attention) go to the model's own function.

    weights: `[batch, pool, seq]`, how much each query counts in each pool.
    received: `[batch, pool, seq]`, the sum over recorded blocks of the mean over heads.
    """

    def __init__(self, blocks: nn.ModuleList, weights: Tensor, roles: TokenRoles, original: AttentionFunction | None):
        self.weights = weights.float()
        self.received = torch.zeros_like(self.weights)
        self.n_recorded = 0
        self.is_recording = False
        self.backends: set[str] = set()
        self._own = {id(module) for module in blocks.modules()}
        self._original = original
        self._masks = _MaskReader(roles)

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Any]:
        if not self._is_ours(module, query, key):
            function = self._original or _eager_function(module)
            return function(module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **kwargs)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        mask = _with_bias(attention_mask, kwargs.get("position_bias"))
        mask, causal = self._masks.simplify(mask, bool(causal) and attention_mask is None)
        options = {"softcap": kwargs.get("softcap"), "sinks": kwargs.get("s_aux")}
        output = self._attend(query, key, value, mask, scale, causal, options)
        return output.transpose(1, 2).contiguous(), None

    def saliency(self) -> Tensor:
        """Mean over the recorded blocks; `[batch, pool, seq]`."""
        return self.received / max(self.n_recorded, 1)

    def _is_ours(self, module: nn.Module, query: Tensor, key: Tensor) -> bool:
        seq = self.weights.shape[-1]
        return id(module) in self._own and query.shape[2] == seq and key.shape[2] == seq

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        causal: bool,
        options: dict[str, Any],
    ) -> Tensor:
        weights = self.weights.to(query.device) if self.is_recording else None
        needs_plain = any(option is not None for option in options.values())
        fused = None if needs_plain else fused_attend(query, key, value, mask, scale=scale, is_causal=causal)
        if fused is None:
            output, received = attend(
                query, key, value, mask, scale=scale, is_causal=causal, weights=weights, **options
            )
        else:
            output, lse = fused
            received = None
            if weights is not None:
                received = column_sums(query, key, lse, mask, weights, scale=scale, is_causal=causal)
        self.backends.add("plain" if fused is None else f"{query.device.type}-fused")
        if received is not None:
            self.received += received.to(self.received.device)
            self.n_recorded += 1
        return output


class _MaskReader:
    """Recognises the masks that say nothing but "causal, padded on the right".

    Then no mask is needed: no real token can see the padding behind it. Kernels without a mask are faster.
    """

    def __init__(self, roles: TokenRoles):
        lengths = roles.is_token.sum(-1)
        seq = roles.is_token.shape[1]
        positions = torch.arange(seq, device=roles.is_token.device)
        self._is_right_padded = bool((roles.is_token == (positions < lengths[:, None])).all())
        self._is_token = roles.is_token
        self._known: dict[int, tuple[Tensor, bool]] = {}

    def simplify(self, mask: Tensor | None, is_causal: bool) -> tuple[Tensor | None, bool]:
        """The mask to use, and whether the kernel shall mask the future itself."""
        if mask is None:
            return None, is_causal
        if self._is_plain_causal(mask):
            return None, True
        return mask, is_causal

    def _is_plain_causal(self, mask: Tensor) -> bool:
        if id(mask) not in self._known:
            # Holding the mask keeps its id from being reused within this forward.
            self._known[id(mask)] = (mask, self._is_right_padded and self._says_causal(mask))
        return self._known[id(mask)][1]

    def _says_causal(self, mask: Tensor) -> bool:
        is_token = self._is_token.to(mask.device)
        seq = is_token.shape[1]
        if mask.ndim != 4 or mask.shape[-2:] != (seq, seq) or mask.shape[0] not in (1, len(is_token)):
            return False
        may_attend = mask if mask.dtype == torch.bool else mask == 0
        if mask.dtype != torch.bool and not bool((may_attend | (mask <= torch.finfo(mask.dtype).min)).all()):
            return False  # a bias, not only a mask
        expected = torch.ones(seq, seq, dtype=torch.bool, device=mask.device).tril()
        expected = expected & is_token[:, None, None]
        differs = (may_attend != expected) & is_token[:, None, :, None]
        return not bool(differs.any())


def _with_bias(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    if bias is None or mask is None:
        return mask if bias is None else bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, torch.finfo(bias.dtype).min)
    return mask + bias


def _eager_function(module: nn.Module) -> AttentionFunction:
    """What transformers falls back to under "eager": a function of the module's own file, named in its forward."""
    forward = inspect.unwrap(type(module).forward)
    name = next(name for name in forward.__code__.co_names if name.endswith("eager_attention_forward"))
    function: AttentionFunction = forward.__globals__[name]
    return function

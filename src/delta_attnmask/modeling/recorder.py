"""The attention function that stands in for the model's own: same output, and it sums what each token receives."""

import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.kernels import additive, counted_spans, fused_attend, takes_kernel, triton_fault
from delta_attnmask.modeling.plain_attention import attend
from delta_attnmask.modeling.running import Reached
from delta_attnmask.settings import AttentionBackend

REGISTRY_LOCK = threading.RLock()  # transformers keeps attention functions in one global table

AttentionFunction = Callable[..., tuple[Tensor, Any]]

_N_KEPT = 4  # masks: a model has one or two kinds of them

_active: list["AttentionRecorder"] = []  # those at work in nested forwards, the innermost last


@dataclass(frozen=True)
class AttentionCall:
    """What one block gives to attention.

    query, key, value: `[batch, head, seq, dim]`; key and value may have fewer heads (grouped).
    mask: None, boolean (True = may attend) or additive, broadcastable to `[batch, head, seq, seq]`.
    softcap, sinks: as in `attend`.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    is_causal: bool
    softcap: float | None
    sinks: Tensor | None


@torch.compiler.disable  # type: ignore[untyped-decorator]
def recorded_attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
    """The attention function that is registered, always the same one, so that compiled blocks needn't compile again."""
    return _active[-1](module, *args, **kwargs)


@contextmanager
def recording(name: str, recorder: "AttentionRecorder") -> Iterator[None]:
    """Let `recorder` run as the attention implementation `name` of transformers."""
    table = AttentionInterface._global_mapping
    original: Any = table.get(name)
    recorder.original = _active[-1] if original is recorded_attention else original
    table[name] = recorded_attention
    _active.append(recorder)
    try:
        yield
    finally:
        _active.pop()
        if original is None:
            del table[name]
        else:
            table[name] = original


class _SeenMask(NamedTuple):
    mask: Tensor  # held, so that no other takes its memory
    memory: tuple[Any, ...]  # when it was looked at
    needs_none: bool
    added: dict[torch.dtype, Tensor]  # as numbers to add


class MaskReader:
    """Tells for each mask of one forward whether attention can do without it.

    Under "causal, padded on the right" no real token can see the padding after it, so no mask is needed, and kernels
    without one are faster. Each mask is looked at once, for which the device has to be waited for, also where a model
    slices it again for each block.
    """

    def __init__(self, roles: TokenRoles):
        self._is_token = roles.is_token
        self._latest: deque[_SeenMask] = deque(maxlen=_N_KEPT)

    def simplify(self, mask: Tensor | None, is_causal: bool) -> tuple[Tensor | None, bool]:
        """The mask to use, and whether the future shall be masked beside it."""
        if mask is None:
            return None, is_causal
        return (None, True) if self._look_at(mask).needs_none else (mask, is_causal)

    def additive(self, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """What `kernels.additive` makes of the mask, once for all blocks."""
        added = self._look_at(mask).added
        if dtype not in added:
            added[dtype] = additive(mask, dtype)
        return added[dtype]

    def _look_at(self, mask: Tensor) -> _SeenMask:
        # Masks of which this is equal hold the same numbers.
        memory = mask.device, mask.dtype, mask.data_ptr(), mask.shape, mask.stride(), mask._version
        seen = next((seen for seen in self._latest if seen.memory == memory), None)
        if seen is None:
            seen = _SeenMask(mask, memory, self._is_plain_causal(mask), {})
            self._latest.append(seen)
        return seen

    def _is_plain_causal(self, mask: Tensor) -> bool:
        is_token = self._is_token.to(mask.device)
        seq = is_token.shape[1]
        if mask.ndim != 4 or mask.shape[-2:] != (seq, seq) or mask.shape[0] not in (1, len(is_token)):
            return False
        positions = torch.arange(seq, device=mask.device)
        is_right_padded = (is_token == (positions < is_token.sum(-1, keepdim=True))).all()
        expected = (positions <= positions[:, None]) & is_token[:, None, None]
        may_attend = mask if mask.dtype == torch.bool else mask == 0
        agrees = ((may_attend == expected) | ~is_token[:, None, :, None]).all()
        if mask.dtype != torch.bool:  # a bias that is added to some scores is more than a mask
            agrees &= (may_attend | (mask <= torch.finfo(mask.dtype).min)).all()
        return bool(is_right_padded & agrees)


class AttentionRecorder:
    """Callable with the signature of transformers' attention functions.

    Modules outside the decoder (vision towers use the same registry) and attention onto other sequences
    (cross-attention) go to the model's own function.

    weights: `[batch, pool, seq]`, how much each query counts in each pool.
    backend: "auto" takes the fastest: on NVIDIA GPUs torch's kernels, whose columns the Triton kernel sums; "triton"
        refuses where that can't run; "plain" keeps to the definition, as softcaps, attention sinks and CPUs always do.
    backends: what ran, such as "triton". original: the model's own function. n_blocks: whose attention was summed.
    stops_at_last: whether the last block's forward ends where it attends, with `Reached`.
    stand_in: what the last block's attention returns instead, `[batch, seq, head, dim]`.
    """

    def __init__(self, blocks: nn.ModuleList, weights: Tensor, roles: TokenRoles, backend: AttentionBackend = "auto"):
        if backend == "triton" and weights.device.type != "cuda":
            raise SettingsError(_refusal(triton_fault(weights.device, torch.bfloat16, 64)))
        self.original: AttentionFunction | None = None
        self.is_recording = False
        self.backends: set[str] = set()
        self.n_blocks = 0
        self.stops_at_last = False
        self.stand_in: Tensor | None = None
        self._backend = backend
        self._weights = weights.float().contiguous()
        self._sum = torch.zeros_like(self._weights)
        self._own = {id(module) for module in blocks.modules()}
        self._last = {id(module) for module in blocks[-1].modules()}
        self._masks = MaskReader(roles)

    @property
    def saliency(self) -> Tensor:
        """What tokens received, mean over heads and recorded blocks; `[batch, pool, seq]`, float32."""
        return self._sum / max(self.n_blocks, 1)

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
        is_last = id(module) in self._last
        if is_last and self.stand_in is not None:
            return self.stand_in, None
        if not self._is_ours(module, query, key):
            function = self.original or _eager_function(module)
            return function(module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **kwargs)
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        mask = _with_bias(attention_mask, kwargs.get("position_bias"))
        mask, causal = self._masks.simplify(mask, bool(causal) and attention_mask is None)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        call = AttentionCall(query, key, value, mask, scale, causal, kwargs.get("softcap"), kwargs.get("s_aux"))
        if is_last and self.stops_at_last:
            if self.is_recording:
                self._attend(call)
            raise Reached(call)
        return self._attend(call).transpose(1, 2).contiguous(), None

    def _is_ours(self, module: nn.Module, query: Tensor, key: Tensor) -> bool:
        return id(module) in self._own and query.shape[2] == self._weights.shape[-1] == key.shape[2]

    def _attend(self, call: AttentionCall) -> Tensor:
        name = "plain"
        is_usual = call.softcap is None and call.sinks is None and (call.mask is None or not call.is_causal)
        if is_usual and self._backend != "plain" and takes_kernel(call.query, call.value):
            value = call.value
            fault = triton_fault(value.device, value.dtype, value.shape[-1]) if self.is_recording else ""
            if fault and self._backend == "triton":
                raise SettingsError(_refusal(fault))
            if not fault:
                return self._attend_fused(call)
            name = f"plain (Triton {fault})"
        weights = self._weights.to(call.query.device) if self.is_recording else None
        output, received = attend(**vars(call), weights=weights)
        self._add(received, name)
        return output

    def _attend_fused(self, call: AttentionCall) -> Tensor:
        """By torch's kernel, and the columns by Triton."""
        dtype, device = call.value.dtype, call.value.device
        query, key = call.query.to(dtype), call.key.to(dtype)  # under autocast rotating leaves them in float32
        mask = None if call.mask is None else self._masks.additive(call.mask, dtype)
        scaling: dict[str, Any] = {"scale": call.scale, "is_causal": call.is_causal}
        output, lse = fused_attend(query, key, call.value, mask, **scaling)
        if self.is_recording:
            from delta_attnmask.modeling.triton_received import received_columns

            weights, spans = self._weights.to(device), self._spans.to(device)
            with torch.cuda.device(device):
                self._add(received_columns(query, key, lse, mask, weights, spans, **scaling), "triton")
        return output

    @cached_property
    def _spans(self) -> Tensor:
        return counted_spans(self._weights)

    def _add(self, received: Tensor | None, backend: str) -> None:
        if received is not None:
            self._sum += received.to(self._sum.device)
            self.n_blocks += 1
            self.backends.add(backend)


class AttentionObserver(AttentionRecorder):
    """Sums what tokens receive beside the model's own attention, whose output, gradient and dropout stay as they are.

    Costs one more attention forward in each recorded block, without a gradient.
    """

    def __call__(self, module: nn.Module, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        if self.is_recording and self._is_ours(module, query, key):
            with torch.no_grad():
                super().__call__(module, query, key, *args, **kwargs)
        function = self.original or _eager_function(module)
        return function(module, query, key, *args, **kwargs)


def _refusal(fault: str) -> str:
    return f"attention='triton': {fault}; use attention='auto'"


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

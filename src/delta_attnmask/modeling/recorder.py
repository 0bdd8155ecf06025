"""The attention function that stands in for the model's own: same output, and it sums what each token receives."""

import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.modeling.kernels import ReceivedAttention, fused_attend, wants_tiles
from delta_attnmask.modeling.plain_attention import attend, tiled_attend
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

    def in_one_precision(self) -> "AttentionCall":
        """With queries and keys in that of the values; under autocast rotating leaves them in float32."""
        dtype = self.value.dtype
        return replace(self, query=self.query.to(dtype), key=self.key.to(dtype))


class AtAttention(Exception):
    """Ends the last block's forward at its attention."""

    def __init__(self, call: AttentionCall):
        super().__init__()
        self.call = call


@torch.compiler.disable  # type: ignore[untyped-decorator]
def recorded_attention(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
    """The attention function that is registered, always the same one, so that compiled blocks needn't compile anew."""
    return _active[-1](module, *args, **kwargs)


@contextmanager
def recording(table: dict[str, Any], name: str, recorder: "AttentionRecorder") -> Iterator[None]:
    """Let `recorder` run as the attention implementation `name` of transformers' table."""
    original = table.get(name)
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
    mask: Tensor
    memory: tuple[Any, ...]  # when it was looked at
    needs_none: bool


class MaskReader:
    """Tells for each mask of one forward whether a kernel can do without it.

    Under "causal, padded on the right" no real token can see the padding after it, so no mask is needed, and kernels
    without one are faster. Each mask is looked at once: one device synchronisation a mask, not a block, also where a
    model slices it anew for each block. Where a model is spread over devices, each block gets a copy of its own: it is
    compared with the latest masks and not kept.
    """

    def __init__(self, roles: TokenRoles):
        self._is_token = roles.is_token
        self._latest: deque[_SeenMask] = deque(maxlen=_N_KEPT)

    def simplify(self, mask: Tensor | None, is_causal: bool) -> tuple[Tensor | None, bool]:
        """The mask to use, and whether the kernel shall mask the future itself."""
        if mask is None:
            return None, is_causal
        return (None, True) if self._needs_none(mask) else (mask, is_causal)

    def _needs_none(self, mask: Tensor) -> bool:
        memory = _memory(mask)
        for latest in self._latest:
            if latest.memory == memory:
                return latest.needs_none
        for latest in self._latest:  # this waits for the device
            if latest.memory == _memory(latest.mask) and _is_copy(latest.mask, mask):
                return latest.needs_none
        self._latest.append(_SeenMask(mask, memory, self._is_plain_causal(mask)))
        return self._latest[-1].needs_none

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


def _memory(mask: Tensor) -> tuple[Any, ...]:
    """Where a mask lies, and how often that was written to: two masks of which this is equal hold the same numbers."""
    return mask.device, mask.dtype, mask.data_ptr(), mask.shape, mask.stride(), mask._version


def _is_copy(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)


class AttentionRecorder:
    """Callable with the signature of transformers' attention functions.

    Modules outside the decoder (vision towers use the same registry) and attention onto other sequences
    (cross-attention) go to the model's own function.

    weights: `[batch, pool, seq]`, how much each query counts in each pool.
    backend: "plain" keeps to the definition, "tiled" gets both from the same scores (CPU), "fused" runs torch's flash
        kernel and sums its columns in torch, "triton" by the Triton kernel, "auto" takes the fastest. Softcaps and
        attention sinks are always plain, other masks than "causal" never go to Triton.
    backends: what ran, such as "cuda-triton". original: the model's own function.
    stops_at_last: whether the last block's forward ends where it attends, with `AtAttention`.
    stand_in: what the last block's attention returns instead, `[batch, seq, head, dim]`.
    """

    def __init__(self, blocks: nn.ModuleList, weights: Tensor, roles: TokenRoles, backend: AttentionBackend = "auto"):
        self.received = ReceivedAttention(weights, backend)
        self.original: AttentionFunction | None = None
        self.is_recording = False
        self.backends: set[str] = set()
        self.stops_at_last = False
        self.stand_in: Tensor | None = None
        self._backend = backend
        self._own = {id(module) for module in blocks.modules()}
        self._last = {id(module) for module in blocks[-1].modules()}
        self._masks = MaskReader(roles)

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
            raise AtAttention(call)
        return self._attend(call).transpose(1, 2).contiguous(), None

    def _is_ours(self, module: nn.Module, query: Tensor, key: Tensor) -> bool:
        return id(module) in self._own and query.shape[2] == self.received.seq == key.shape[2]

    def _attend(self, call: AttentionCall) -> Tensor:
        if call.softcap is None and call.sinks is None and self._backend != "plain":
            if wants_tiles(self._backend, call.query):
                return self._attend_in_tiles(call)
            cast = call.in_one_precision()
            fused = fused_attend(
                cast.query, cast.key, cast.value, cast.mask, scale=cast.scale, is_causal=cast.is_causal
            )
            if fused is not None:
                self._note(cast, fused[1])
                return fused[0]
        return self._attend_plainly(call)

    def _attend_in_tiles(self, call: AttentionCall) -> Tensor:
        output, received = tiled_attend(
            call.query, call.key, call.value, call.mask, self._weights, scale=call.scale, is_causal=call.is_causal
        )
        self._add(received, "cpu-tiles")
        return output

    def _attend_plainly(self, call: AttentionCall) -> Tensor:
        output, received = attend(
            call.query,
            call.key,
            call.value,
            call.mask,
            scale=call.scale,
            is_causal=call.is_causal,
            weights=None if self._weights is None else self._weights.to(call.query.device),
            softcap=call.softcap,
            sinks=call.sinks,
        )
        self._add(received, "plain")
        return output

    @property
    def _weights(self) -> Tensor | None:
        return self.received.weights if self.is_recording else None

    def _add(self, received: Tensor | None, backend: str) -> None:
        if received is not None:
            self.received.add(received)
            self.backends.add(backend)

    def _note(self, call: AttentionCall, lse: Tensor) -> None:
        if self.is_recording:
            code = self.received.add_columns(
                call.query, call.key, lse, call.mask, scale=call.scale, is_causal=call.is_causal
            )
            self.backends.add(f"{call.query.device.type}-{code}")


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

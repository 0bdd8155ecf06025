"""The last block run again for the rows that are read alone, however many masks there are.

What a position gives to attention depends on its own state only. So the queries, keys and values under any mask are
those of the captured forward, and at masked positions those of one run in which every state is the replacement: the
keys of the other positions never change, and only the rows that are read need attention and what follows it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.plain_attention import attend
from delta_attnmask.modeling.recorder import AttentionCall, AttentionRecorder
from delta_attnmask.modeling.running import Reached, first_states, given_states, with_states

_STATES = ("query", "key", "value")


@dataclass(frozen=True)
class Rows:
    """The positions that are read, one after the other and sample by sample.

    samples, positions: `[row]`. is_row, index: the same with one line a sample, `[batch, longest]`; fillers repeat a
    line's first row.
    """

    samples: Tensor
    positions: Tensor
    is_row: Tensor
    index: Tensor

    @classmethod
    def of(cls, is_read: Tensor) -> "Rows":
        """is_read: `[batch, seq]`; every sample has at least one row."""
        samples, positions = is_read.nonzero(as_tuple=True)
        counts = is_read.sum(-1, keepdim=True)
        is_row = torch.arange(int(counts.max()), device=is_read.device) < counts
        index = is_read.int().argmax(-1, keepdim=True).repeat(1, is_row.shape[1])
        index[is_row] = positions
        return cls(samples, positions, is_row, index)

    def on(self, device: torch.device) -> "Rows":
        return Rows(*(tensor.to(device) for tensor in vars(self).values()))


class LastBlock:
    """The last block of one captured forward; in the place of its forward it gives zeros but for the rows.

    forward: its own.
    Raises UnsupportedModelError where it doesn't attend over the whole sequence through transformers' interface.
    """

    def __init__(self, forward: Callable[..., Any], recorder: AttentionRecorder, rows: Rows):
        self._forward, self._recorder, self._rows = forward, recorder, rows
        self._filled: list[tuple[Tensor, AttentionCall]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._call = (args, kwargs)
        self._states = given_states(args, kwargs)  # [batch, seq, hidden]
        self._rows = self._rows.on(self._states.device)
        self._attention = self._attention_of(self._states)
        own = self._finish_rows(self._states, self._attention)
        states = torch.zeros_like(self._states)
        states[self._places] = first_states(own)[0]
        return with_states(own, states)

    def run(self, states: Tensor) -> Tensor:
        """Its output at the rows if it were given `states` `[batch, seq, hidden]`; `[1, row, hidden]`."""
        return first_states(self._finish_rows(states, self._attention_of(states)))

    def run_masked(self, is_masked: Tensor, fill: Tensor) -> Tensor:
        """Its output at the rows if it were given `fill` at masked positions; `[1, row, hidden]`.

        is_masked: `[batch, seq]`. fill: `[batch, 1, hidden]`; the same tensor again spares a run.
        """
        own, filled, is_masked = self._attention, self._attention_under(fill), is_masked.to(self._states.device)
        is_filled = is_masked[:, None, :, None]
        mixed: dict[str, Any] = {
            name: torch.where(is_filled, getattr(filled, name), getattr(own, name)) for name in _STATES
        }
        states = torch.where(is_masked[..., None], fill, self._states)
        return first_states(self._finish_rows(states, replace(own, **mixed)))

    @property
    def _places(self) -> tuple[Tensor, Tensor]:
        return self._rows.samples, self._rows.positions

    def _finish_rows(self, states: Tensor, attention: AttentionCall) -> Any:
        """What it returns for the rows. states: `[batch, seq, hidden]`. attention: what these give to it."""
        self._recorder.stand_in = _attend_rows(attention, self._rows)
        try:
            return self._run_block(states[self._places][None], self._rows)
        finally:
            self._recorder.stand_in = None

    def _attention_under(self, fill: Tensor) -> AttentionCall:
        for known, attention in self._filled:
            if known is fill:
                return attention
        self._filled.append((fill, self._attention_of(fill.expand_as(self._states))))
        return self._filled[-1][1]

    def _attention_of(self, states: Tensor) -> AttentionCall:
        """What it gives to attention under `states`; it stops there."""
        self._recorder.stops_at_last = True
        try:
            self._run_block(states, None)
        except Reached as reached:
            call: AttentionCall = reached.call
            return call
        finally:
            self._recorder.stops_at_last = False
        raise UnsupportedModelError("the last block attends to nothing that can be read")

    def _run_block(self, states: Tensor, rows: Rows | None) -> Any:
        args, kwargs = self._call
        batch, seq = self._states.shape[:2]

        def narrow(value: Any) -> Any:
            return value if rows is None else at_rows(value, rows, batch, seq)

        if args:
            args = (states, *(narrow(value) for value in args[1:]))
        else:
            kwargs = kwargs | {"hidden_states": states}
        kept = ("hidden_states", "attention_mask")  # what stands in for attention needs no mask
        kwargs = {name: value if name in kept else narrow(value) for name, value in kwargs.items()}
        return self._forward(*args, **kwargs)


def at_rows(value: Any, rows: Rows, batch: int, seq: int) -> Any:
    """What a block is given for each position (rotary angles, position ids), for the rows alone as one sequence.

    Tensors with neighbouring dimensions `[batch or 1, seq]`, or of one dimension `[seq]`, are narrowed; all else stays.
    """
    if isinstance(value, tuple):
        return tuple(at_rows(part, rows, batch, seq) for part in value)
    if not isinstance(value, Tensor):
        return value
    if value.shape == (seq,):
        return value[rows.positions.to(value.device)]
    for dim in range(value.ndim - 1):
        if value.shape[dim] in (1, batch) and value.shape[dim + 1] == seq:
            samples, positions = rows.samples.to(value.device), rows.positions.to(value.device)
            every = value.expand(*value.shape[:dim], batch, *value.shape[dim + 1 :])
            return every[(slice(None),) * dim + (samples, positions)].unsqueeze(dim)
    return value


def _attend_rows(call: AttentionCall, rows: Rows) -> Tensor:
    """Attention of the rows; `[1, row, head, dim]`."""
    index = rows.index[:, None, :, None]
    query = call.query.gather(2, index.expand(-1, call.query.shape[1], -1, call.query.shape[-1]))
    output, _ = attend(**vars(call) | {"query": query, "mask": _mask_of_rows(call, rows), "is_causal": False})
    return output.transpose(1, 2)[rows.is_row][None]


def _mask_of_rows(call: AttentionCall, rows: Rows) -> Tensor | None:
    """The rows' part of the mask, `[batch, 1 or head, longest, seq]`."""
    index, seq = rows.index[:, None, :, None], call.key.shape[2]
    may_attend = torch.arange(seq, device=index.device) <= index
    if call.mask is None:
        return may_attend if call.is_causal else None
    mask = call.mask.expand(len(index), -1, seq, -1)
    mask = mask.gather(2, index.expand(-1, mask.shape[1], -1, seq))
    if not call.is_causal:
        return mask
    return mask & may_attend if mask.dtype == torch.bool else mask.masked_fill(~may_attend, -torch.inf)

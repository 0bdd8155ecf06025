"""The hooks of one forward, and what they keep of it so that its tail and its head can be run again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.running import Call, are_same, first_states, given_states, with_states

Positions = tuple[Tensor, Tensor]  # sample and position of each row


@dataclass(frozen=True)
class Kept:
    """What one forward left.

    states: block index to the states that it put out, `[..., batch, seq, hidden]`, for the blocks asked for.
    block_outputs, backbone_output: what they gave beside their states. backbone: what the head's owner called.
    first_block: the first block after which the states pass from block to block untouched.
    rows: the decoder's output at the positions that are read, `[row, hidden]`.
    """

    decoder_call: Call
    head_call: Call
    backbone: nn.Module
    backbone_output: Any
    block_outputs: Mapping[int, Any]
    states: Mapping[int, Tensor]
    first_block: int
    rows: Tensor


class Keeper:
    """Keeps the calls and outputs of the forward that runs while it is attached, and spares the head all but one row.

    blocks: whose states to keep. positions: the rows that are read.
    """

    def __init__(self, anatomy: Anatomy, blocks: Sequence[int], positions: Positions):
        self._anatomy, self._blocks, self._positions = anatomy, blocks, positions
        self._calls: dict[str, Call] = {}
        self._states: dict[int, Tensor] = {}
        self._block_outputs: dict[int, Any] = {}
        self._first_block = 0
        self._passed_on: Tensor | None = None
        self._rows: Tensor | None = None
        self._backbone: nn.Module | None = None
        self._backbone_output: Any = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        anatomy = self._anatomy
        handles = [
            anatomy.decoder.register_forward_pre_hook(self._call_keeper("decoder"), with_kwargs=True),
            anatomy.head_owner.register_forward_pre_hook(self._call_keeper("head"), with_kwargs=True),
            *(
                block.register_forward_hook(self._block_keeper(index), with_kwargs=True)
                for index, block in enumerate(anatomy.blocks)
            ),
            anatomy.decoder.register_forward_hook(self._keep_rows),
            *(module.register_forward_pre_hook(self._note_backbone) for module in anatomy.backbones),
            *(module.register_forward_hook(self._keep_output) for module in anatomy.backbones),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def kept(self) -> Kept:
        """What was kept; raises UnsupportedModelError where the forward didn't run its decoder and its head."""
        if self._rows is None or self._backbone is None or self._calls.keys() != {"decoder", "head"}:
            raise UnsupportedModelError(
                f"{type(self._anatomy.model).__name__}: its forward doesn't run its decoder "
                f"({self._anatomy.decoder_path or 'itself'}) and then its head, so it can't be replayed "
                "(docs/add-a-model.md)"
            )
        return Kept(
            decoder_call=self._calls["decoder"],
            head_call=self._calls["head"],
            backbone=self._backbone,
            backbone_output=self._backbone_output,
            block_outputs=self._block_outputs,
            states=self._states,
            first_block=self._first_block,
            rows=self._rows,
        )

    def _call_keeper(self, name: str) -> Callable[..., None]:
        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._calls[name] = (args, kwargs)

        return keep

    def _block_keeper(self, index: int) -> Callable[..., None]:
        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if index and not are_same(given_states(args, kwargs), self._passed_on):
                self._first_block = index
            self._passed_on = first_states(output)
            self._block_outputs[index] = with_states(output, None)
            if index in self._blocks:
                self._states[index] = first_states(output)

        return keep

    def _keep_rows(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._passed_on = None
        self._rows = rows_of(first_states(output), self._positions)

    def _note_backbone(self, module: nn.Module, _args: Any) -> None:
        if self._backbone is None:
            self._backbone = module

    def _keep_output(self, module: nn.Module, _args: Any, output: Any) -> Any:
        if module is not self._backbone or self._rows is None:
            return output
        self._backbone_output = with_states(output, None)
        return with_states(output, self._rows[None, :1])


def rows_of(states: Tensor, positions: Positions) -> Tensor:
    """`[batch, seq, hidden]` at the positions; `[row, hidden]`."""
    samples, places = positions
    return states[samples.to(states.device), places.to(states.device)]

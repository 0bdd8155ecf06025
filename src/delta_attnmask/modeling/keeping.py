"""The hooks of one forward, and what they keep of it so that its tail and its head can be run again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.running import Call, are_same, first_states, given_states, with_states

Positions = tuple[Tensor, Tensor]  # sample and position of each row


class Keeper:
    """Keeps the calls and outputs of the forward that runs while it is attached, and spares the head all but one row.

    blocks: whose states to keep. positions: the rows that are read.

    states: block index to the states that it put out, `[..., batch, seq, hidden]`.
    block_outputs, backbone_output: what they gave beside their states. backbone: what the head's owner called.
    first_block: the first block after which the states pass from block to block untouched. Before it the model
        adds to them (deepstack image features), which would undo a mask.
    rows: the decoder's output at the positions, `[row, hidden]`.
    """

    decoder_call: Call
    head_call: Call
    backbone: nn.Module
    backbone_output: Any
    rows: Tensor

    def __init__(self, anatomy: Anatomy, blocks: Sequence[int], positions: Positions):
        self._anatomy, self._blocks, self._positions = anatomy, blocks, positions
        self.states: dict[int, Tensor] = {}
        self.block_outputs: dict[int, Any] = {}
        self.first_block = 0
        self._passed_on: Tensor | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Raises UnsupportedModelError at the end where the forward didn't run its decoder and its head."""
        anatomy = self._anatomy
        handles = [
            anatomy.decoder.register_forward_pre_hook(self._call_keeper("decoder_call"), with_kwargs=True),
            anatomy.head_owner.register_forward_pre_hook(self._call_keeper("head_call"), with_kwargs=True),
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
        if not {"rows", "backbone", "decoder_call", "head_call"} <= vars(self).keys():
            raise UnsupportedModelError(
                f"{type(anatomy.model).__name__}: its forward doesn't run its decoder "
                f"({anatomy.decoder_path or 'itself'}) and then its head, so it can't be replayed "
                "(docs/add-a-model.md)"
            )

    def _call_keeper(self, name: str) -> Callable[..., None]:
        return lambda _module, args, kwargs: setattr(self, name, (args, kwargs))

    def _block_keeper(self, index: int) -> Callable[..., None]:
        def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if index and not are_same(given_states(args, kwargs), self._passed_on):
                self.first_block = index
            self._passed_on = first_states(output)
            self.block_outputs[index] = with_states(output, None)
            if index in self._blocks:
                self.states[index] = first_states(output)

        return keep

    def _keep_rows(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self._passed_on = None
        self.rows = rows_of(first_states(output), self._positions)

    def _note_backbone(self, module: nn.Module, _args: Any) -> None:
        if "backbone" not in vars(self):
            self.backbone = module

    def _keep_output(self, module: nn.Module, _args: Any, output: Any) -> Any:
        if module is not self.backbone or "rows" not in vars(self):
            return output
        self.backbone_output = with_states(output, None)
        return with_states(output, self.rows[None, :1])


def rows_of(states: Tensor, positions: Positions) -> Tensor:
    """`[batch, seq, hidden]` at the positions; `[row, hidden]`."""
    samples, places = positions
    return states[samples.to(states.device), places.to(states.device)]

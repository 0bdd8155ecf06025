"""Change what one decoder block puts out, in the training forwards that someone else runs.

Four hooks stay for as long as the context is open; the attention function is in place only while a forward runs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import SettingsError, UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy, examine
from delta_attnmask.modeling.recorder import REGISTRY_LOCK, AttentionObserver, recording
from delta_attnmask.modeling.running import are_same, first_states, given_states, with_states


class StateChange(Protocol):
    """What one forward changes at the output of the block.

    roles: of the batch's positions. query_weights: `[batch, pool, seq]`; None if no attention need be summed.
    """

    @property
    def roles(self) -> TokenRoles: ...

    @property
    def query_weights(self) -> Tensor | None: ...

    def decide(self, saliency: Tensor | None) -> None:
        """Called once a forward, when the block has run.

        saliency: attention received in the blocks up to that one, mean over them, `[batch, pool, seq]`.
        """

    def apply(self, states: Tensor) -> Tensor:
        """The changed states `[..., batch, seq, hidden]`; called again where checkpointing runs the block again."""


# Given the forward's keyword arguments and the columns that were taken out of them.
Plan = Callable[[Anatomy, dict[str, Any], dict[str, Any]], StateChange | None]


@contextmanager
def changing_block(model: nn.Module, block: int, plan: Plan, columns: Sequence[str] = ()) -> Iterator[Anatomy]:
    """Ask `plan` at each training forward of `model` what to change at the output of `block`.

    model: the module that is called, a Hugging Face model or what PEFT or DDP wrapped around one.
    columns: keyword arguments that are for `plan`, and never reach the model, in training or not.

    A training forward is one of a model in training mode with gradients. Gradient checkpointing runs parts of it a
    second time in the backward pass; those get the change of the forward that they belong to.

    Raises UnsupportedModelError or SettingsError where the model or its attention can't be read.
    """
    anatomy = examine(innermost(model))
    name = anatomy.decoder_config._attn_implementation
    if name not in ("sdpa", "eager"):
        raise SettingsError(
            f"attn_implementation={name!r}: in training the attention that tokens receive can only be read from "
            "'sdpa' and 'eager'; load the model with attn_implementation='sdpa'"
        )
    changer = _Changer(anatomy, anatomy.resolve_block(block), plan, columns)
    handles = changer.register(model)
    try:
        yield anatomy
    finally:
        for handle in handles:
            handle.remove()
        changer.end()


def innermost(model: nn.Module) -> nn.Module:
    """The Hugging Face model within what PEFT, DDP or torch.compile wrapped around it."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise UnsupportedModelError(f"{type(model).__name__}: there is no Hugging Face model in it")


class _Changer:
    """The hooks of one `changing_block` and what they know of the forward that is under way."""

    def __init__(self, anatomy: Anatomy, block: int, plan: Plan, columns: Sequence[str]):
        self._anatomy, self._block, self._plan, self._columns = anatomy, block, plan, columns
        self._running: StateChange | None = None  # of the forward that is under way
        self._replayed: StateChange | None = None  # of the forward whose backward is under way
        self._recorder: AttentionObserver | None = None
        self._forward = ExitStack()
        self._is_checked = False

    def register(self, model: nn.Module) -> list[RemovableHandle]:
        return [
            model.register_forward_pre_hook(self._begin, with_kwargs=True),
            self._anatomy.blocks[self._block].register_forward_hook(self._change_output),
            self._anatomy.decoder.register_forward_hook(self._follow_backward),
            model.register_forward_hook(lambda *_: self.end(), always_call=True),
        ]

    def end(self) -> None:
        """The forward is over, or failed."""
        self._running = self._recorder = None
        self._forward.close()

    def _begin(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        columns = {name: kwargs[name] for name in self._columns if name in kwargs}
        kwargs = {name: value for name, value in kwargs.items() if name not in columns}
        self._replayed = None
        if not (module.training and torch.is_grad_enabled()):
            return args, kwargs
        change = self._plan(self._anatomy, kwargs, columns)
        if change is not None:
            if change.query_weights is not None:
                self._record(change.roles, change.query_weights)
            if not self._is_checked:
                self._forward.enter_context(_states_passed_on(self._anatomy, self._block))
                self._is_checked = True
            self._running = change
        return args, kwargs

    def _record(self, roles: TokenRoles, query_weights: Tensor) -> None:
        """Sum the attention of the decoder's blocks until the forward ends."""
        name = self._anatomy.decoder_config._attn_implementation
        self._recorder = AttentionObserver(self._anatomy.blocks, query_weights, roles)
        self._forward.enter_context(REGISTRY_LOCK)
        self._forward.enter_context(recording(name, self._recorder))
        self._recorder.is_recording = True

    def _change_output(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        if self._running is not None:
            self._running.decide(self._read_saliency())
        change = self._running or self._replayed
        return output if change is None else with_states(output, change.apply(first_states(output)))

    def _read_saliency(self) -> Tensor | None:
        if self._recorder is None:
            return None
        self._recorder.is_recording = False
        if not self._recorder.n_blocks:
            raise UnsupportedModelError(
                f"{type(self._anatomy.model).__name__}: no block up to {self._block} uses transformers' attention "
                "interface, so the attention that tokens receive can't be read (docs/models.md)"
            )
        return self._recorder.saliency

    def _follow_backward(self, _module: nn.Module, _args: Any, output: Any) -> None:
        """Have the backward pass say which forward it belongs to, before it reaches any block."""
        states = first_states(output)
        if self._running is not None and states.requires_grad:
            states.register_hook(partial(self._begin_replay, self._running))  # type: ignore[no-untyped-call]

    def _begin_replay(self, change: StateChange, _gradient: Tensor) -> None:
        self._replayed = change
        Variable._execution_engine.queue_callback(self._end_replay)

    def _end_replay(self) -> None:
        self._replayed = None


@contextmanager
def _states_passed_on(anatomy: Anatomy, block: int) -> Iterator[None]:
    """Check in one forward that after `block` each block gets just what the one before it put out."""
    passed_on: list[Tensor] = []

    def compare(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if passed_on and not are_same(given_states(args, kwargs), passed_on[-1]):
            raise SettingsError(
                f"block={block}: this model adds image features to the states after it (deepstack), which would undo "
                "the mask; mask a later block"
            )

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        passed_on[:] = [first_states(output).detach()]

    blocks = list(anatomy.blocks)[block:]
    handles = [module.register_forward_pre_hook(compare, with_kwargs=True) for module in blocks]
    handles += [module.register_forward_hook(keep) for module in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

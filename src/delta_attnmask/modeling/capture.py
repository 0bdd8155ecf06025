"""One forward of a Hugging Face model, with everything kept that is needed to run its tail again.

Hooks, stubs and the attention function live inside `captured_forward` and are gone when it is left, also
by an exception.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import SettingsError, UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.kernels import without_cudnn_attention
from delta_attnmask.modeling.last_block import LastBlock, Rows
from delta_attnmask.modeling.recorder import REGISTRY_LOCK, AttentionRecorder, recording
from delta_attnmask.modeling.running import (
    Call,
    are_same,
    evaluating,
    first_states,
    given_states,
    no_cache,
    readable_implementation,
    replaced_forward,
    with_states,
)
from delta_attnmask.modeling.vision import linear_patches, packed_vision, shared_images
from delta_attnmask.settings import AttentionBackend

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


_LOGITS_PER_CHUNK = 1 << 26  # of the head's output: 256 MiB in float32

TokenFunction = Callable[[Tensor, Tensor], Tensor]  # logits [row, vocabulary], targets [row] -> [row]


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of `targets` `[row]` under `logits` `[row, vocabulary]`; `[row]`."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


class CapturedForward:
    """What one forward left, and how to run its tail and its head again.

    states, first_block: as in `Keeper`.
    saliency: `[batch, pool, seq]`, pools in the order of `query_weights`.
    n_recorded: decoder blocks whose attention was seen. backend: which attention code ran, such as "triton".
    answer_positions: sample and position of each row, which predict an answer token.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        recorder: AttentionRecorder,
        roles: TokenRoles,
        labels: Tensor,
        answer_positions: Positions,
        kept: Keeper,
        last_block: LastBlock | None,
    ):
        self.states = kept.states
        self.first_block = kept.first_block
        self.saliency = recorder.saliency
        self.n_recorded = recorder.n_blocks
        self.backend = "+".join(sorted(recorder.backends))
        self.answer_positions = answer_positions
        self._anatomy = anatomy
        self._roles = roles
        self._targets = roles.targets(labels)
        self._kept = kept
        self._last_block = last_block  # where it runs on the rows alone

    def final_rows(self) -> Tensor:
        """The decoder's output at the positions that predict an answer token; `[row, hidden]`."""
        return self._kept.rows

    def run_masked(self, block: int, is_masked: Tensor, fill: Tensor) -> Tensor:
        """Run the blocks after `block` with the states of masked positions replaced; `[row, hidden]`.

        is_masked: `[batch, seq]`. fill: what replaces them, `[..., batch, 1, hidden]`; give the same tensor again where
        it is the same, which spares a run of the last block.
        Raises SettingsError before `first_block`.
        """
        if self._last_block is not None and block == self._anatomy.n_blocks - 2 >= self.first_block:
            return self._decode(block + 1, self._last_block.run_masked(is_masked, fill))[0]
        states = self.states[block]
        return self.run_tail(block, torch.where(is_masked[..., None].to(states.device), fill, states))

    def run_tail(self, block: int, states: Tensor) -> Tensor:
        """Run the blocks after `block` on `states` (as kept in `states[block]`); `[row, hidden]`.

        Raises SettingsError for changed states before `first_block`.
        """
        if block < self.first_block and states is not self.states[block]:
            raise SettingsError(
                f"block={block}: the first that can be masked here is {self.first_block}, since this model "
                "adds image features to the states between earlier blocks (deepstack)"
            )
        output = self._decode(block, states)
        return rows_of(output, self.answer_positions) if self._last_block is None else output[0]

    def _decode(self, block: int, states: Tensor) -> Tensor:
        """The decoder's output if `block` had put out `states`; of the rows alone where the last block runs on them."""
        blocks, last = self._anatomy.blocks, self._anatomy.n_blocks - 1
        args, kwargs = self._kept.decoder_call
        with ExitStack() as stack:
            for index in range(block + 1):
                replacement = states if index == block else None
                stub = _stub_block(self._kept.block_outputs[index], replacement)
                stack.enter_context(replaced_forward(blocks[index], stub))
            if self._last_block is not None and block < last:
                on_rows = _stub_block(self._kept.block_outputs[last], self._last_block.run)
                stack.enter_context(replaced_forward(blocks[last], on_rows))
            return first_states(self._anatomy.decoder(*args, **kwargs))

    def answer_loss(self, rows: Tensor) -> Tensor:
        """Each sample's loss, mean over its answer tokens in nats, given `rows`; `[batch]`, float32."""
        return self._roles.mean_by_sample(self.token_losses(rows))

    def token_losses(self, rows: Tensor) -> Tensor:
        """Negative log-likelihood in nats of each answer token given the decoder's output `rows`; `[row]`."""
        return self.token_values(rows, {"loss": nats})["loss"]

    def token_values(self, rows: Tensor, functions: Mapping[str, TokenFunction]) -> dict[str, Tensor]:
        """Each function of the float32 logits and the targets at the decoder's output `rows`; `[row]` a name.

        rows: `[row, hidden]`. The head runs on some at a time, so that no logits of the whole batch exist.
        """
        vocabulary = self._anatomy.model.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
        size = max(1, _LOGITS_PER_CHUNK // vocabulary)
        values: dict[str, list[Tensor]] = {name: [] for name in functions}
        for part, targets in zip(torch.split(rows, size), torch.split(self._targets, size), strict=True):
            logits = self.run_head(part).float()
            for name, function in functions.items():
                values[name].append(function(logits, targets.to(logits.device)))
        return {name: torch.cat(parts) for name, parts in values.items()}

    def run_head(self, rows: Tensor) -> Tensor:
        """The model's own head (with its scales and softcaps) on `rows` `[row, hidden]`; logits `[row, vocabulary]`."""
        output = with_states(self._kept.backbone_output, rows[None])
        args, kwargs = self._kept.head_call
        with replaced_forward(self._kept.backbone, lambda *_, **__: output):
            result = self._anatomy.head_owner(*args, **kwargs)
        logits: Tensor = result.logits if hasattr(result, "logits") else first_states(result)
        return logits[0]


@contextmanager
def captured_forward(
    anatomy: Anatomy,
    inputs: Mapping[str, Any],
    labels: Tensor,
    roles: TokenRoles,
    query_weights: Tensor,
    blocks: Sequence[int],
    attention: AttentionBackend = "auto",
    image_of: Sequence[int] | None = None,
) -> Iterator[CapturedForward]:
    """Run the model once and keep what is needed; the tail can be run again until the context is left.

    roles: of these inputs and labels. image_of: which images are equal, as in an `EncodedBatch`.
    query_weights: `[batch, pool, seq]`; without pools no attention is summed. blocks: whose outputs to keep.
    attention: which code computes attention and what tokens receive of it.
    Raises UnsupportedModelError where no decoder attention went through transformers' attention interface.
    """
    samples, places = roles.predicts_answer.nonzero(as_tuple=True)
    positions = samples, places
    keeper = Keeper(anatomy, blocks, positions)
    last_block: LastBlock | None = None
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(REGISTRY_LOCK)
        stack.enter_context(evaluating(anatomy))
        name = stack.enter_context(readable_implementation(anatomy))
        # The name stays, since some models branch on it; only the function that it stands for changes.
        recorder = AttentionRecorder(anatomy.blocks, query_weights, roles, attention)
        stack.enter_context(recording(name, recorder))
        stack.enter_context(without_cudnn_attention())
        stack.enter_context(packed_vision(anatomy))
        stack.enter_context(linear_patches(anatomy))
        stack.enter_context(shared_images(anatomy.model, image_of))
        with keeper.attached(), ExitStack() as running:
            if anatomy.runs_on_rows and anatomy.n_blocks - 1 not in blocks:
                last_block = LastBlock(anatomy.blocks[-1].forward, recorder, Rows.of(roles.predicts_answer))
                running.enter_context(replaced_forward(anatomy.blocks[-1], last_block))
            recorder.is_recording = query_weights.shape[1] > 0
            anatomy.model(**inputs, **no_cache(anatomy.model))
            recorder.is_recording = False
        if query_weights.shape[1] and not recorder.n_blocks:
            raise UnsupportedModelError(
                f"{type(anatomy.model).__name__}: none of its decoder blocks uses transformers' attention interface, "
                "so the attention that tokens receive can't be read; choose another model (docs/models.md)"
            )
        yield CapturedForward(anatomy, recorder, roles, labels, positions, keeper, last_block)


def _stub_block(kept_output: Any, states: Tensor | Callable[[Tensor], Tensor] | None) -> Callable[..., Any]:
    """A forward that returns what the block returned, but for its states.

    states: to return; None returns those that it gets, a function what it makes of them.
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        if isinstance(states, Tensor):
            return with_states(kept_output, states)
        given = given_states(args, kwargs)
        return with_states(kept_output, given if states is None else states(given))

    return forward

"""One forward of a Hugging Face model, with everything kept that is needed to run its tail again.

The only file that touches a model. Hooks, stubs and the attention function live inside `captured_forward`
and are gone when it is left, also by an exception.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import SettingsError, UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.attention.packed import packed_vision
from delta_attnmask.modeling.attention.received import AttentionBackend
from delta_attnmask.modeling.attention.recorder import REGISTRY_LOCK, AttentionRecorder, recording
from delta_attnmask.modeling.last_block import LastBlock, Rows
from delta_attnmask.modeling.narrow import narrowed, replaced_forward
from delta_attnmask.modeling.outputs import are_same, first_states, given_states, with_states
from delta_attnmask.modeling.sharing import shared_images

_LOGITS_PER_CHUNK = 1 << 26  # of the head's output: 256 MiB in float32
_ROWS_AT_ONCE = 1 << 14  # whose states are held for many masks: 128 MiB in bfloat16 at a width of 4096

TokenFunction = Callable[[Tensor, Tensor], Tensor]  # logits [row, vocabulary], targets [row] -> [row]
Call = tuple[tuple[Any, ...], dict[str, Any]]


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of `targets` `[row]` under `logits` `[row, vocabulary]`; `[row]`."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


class CapturedForward:
    """What one forward left behind, and how to run its tail and its head again.

    saliency: `[batch, pool, seq]`, pools in the order of `query_weights`.
    states: block index to the states that it put out, `[..., batch, seq, hidden]`.
    first_block: the first block behind which the states pass from block to block untouched. Before it the model
        adds to them (deepstack image features), which would undo a mask.
    n_recorded: decoder blocks whose attention was seen.
    answer_positions: sample and position of each row, which predict an answer token.
    """

    def __init__(self, anatomy: Anatomy, recorder: AttentionRecorder, roles: TokenRoles, targets: Tensor):
        self.states: dict[int, Tensor] = {}
        self.first_block = 0
        self._anatomy = anatomy
        self._recorder = recorder
        self._roles = roles
        self._targets = targets
        self.answer_positions = roles.predicts_answer.nonzero(as_tuple=True)
        self._block_outputs: dict[int, Any] = {}
        self._calls: dict[str, Call] = {}
        self._last_block: LastBlock | None = None  # where it runs on the rows alone
        self._passed_on: Tensor | None = None
        self._last_states: Tensor | None = None
        self._backbone: nn.Module | None = None
        self._backbone_output: Any = None

    @property
    def saliency(self) -> Tensor:
        return self._recorder.received.mean()

    @property
    def n_recorded(self) -> int:
        return self._recorder.received.n_blocks

    @property
    def backend(self) -> str:
        """Which attention code ran, such as "cpu-columns"."""
        return "+".join(sorted(self._recorder.backends))

    def final_rows(self) -> Tensor:
        """The decoder's output at the positions that predict an answer token; `[row, hidden]`."""
        return self._rows(self._last_states)

    def run_masked(self, block: int, is_masked: Tensor, fill: Tensor) -> Tensor:
        """Run the blocks behind `block` with the states of masked positions replaced; `[row, hidden]`.

        is_masked: `[batch, seq]`. fill: what replaces them, `[..., batch, 1, hidden]`; give the same tensor again where
        it is the same, which spares a run of the last block.
        Raises SettingsError in front of `first_block`.
        """
        if self._last_block is not None and self._masks_last_input(block):
            return self._decode(block + 1, self._last_block.run_masked(is_masked, fill))[0]
        states = self.states[block]
        return self.run_tail(block, torch.where(is_masked[..., None].to(states.device), fill, states))

    def masked_losses(self, block: int, masks: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Each sample's loss in nats under each mask, given as for `run_masked`; `[batch]`, float32, for each mask.

        Where the last block runs on the rows alone, what comes after it is run for many masks at once.
        """
        if self._last_block is None or not self._masks_last_input(block):
            return [self.answer_loss(self.run_masked(block, *mask)) for mask in masks]
        losses: list[Tensor] = []
        step = max(1, _ROWS_AT_ONCE // len(self._targets))
        for start in range(0, len(masks), step):
            rows = [self._last_block.run_masked(*mask) for mask in masks[start : start + step]]
            values = self.token_losses(self._decode(block + 1, torch.cat(rows, dim=1))[0])
            losses += [self._roles.mean_by_sample(part) for part in values.view(-1, len(self._targets))]
        return losses

    def run_tail(self, block: int, states: Tensor) -> Tensor:
        """Run the blocks behind `block` on `states` (as kept in `states[block]`); `[row, hidden]`.

        Raises SettingsError for changed states in front of `first_block`.
        """
        if block < self.first_block and states is not self.states[block]:
            raise SettingsError(
                f"block={block}: the first that can be masked here is {self.first_block}, since this model "
                "adds image features to the states between earlier blocks (deepstack)"
            )
        output = self._decode(block, states)
        return self._rows(output) if self._last_block is None else output[0]

    def _masks_last_input(self, block: int) -> bool:
        return block == self._anatomy.n_blocks - 2 >= self.first_block

    def _decode(self, block: int, states: Tensor) -> Tensor:
        """The decoder's output if `block` had put out `states`; of the rows alone where the last block runs on them."""
        blocks, last = self._anatomy.blocks, self._anatomy.n_blocks - 1
        args, kwargs = self._calls["decoder"]
        with ExitStack() as stack:
            for index in range(block + 1):
                replacement = states if index == block else None
                stub = _stub_block(self._block_outputs[index], replacement)
                stack.enter_context(replaced_forward(blocks[index], stub))
            if self._last_block is not None and block < last:
                on_rows = _stub_block(self._block_outputs[last], self._last_block.run)
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

        rows: `[row, hidden]`, or those of several masks one after the other. The head runs on some at a time, so that
        no logits of the whole batch exist.
        """
        vocabulary = self._anatomy.model.get_output_embeddings().weight.shape[0]  # type: ignore[operator]
        values: dict[str, list[Tensor]] = {name: [] for name in functions}
        every = self._targets.repeat(len(rows) // len(self._targets))
        for part, targets in _split(rows, every, max(1, _LOGITS_PER_CHUNK // vocabulary)):
            logits = self.run_head(part).float()
            for name, function in functions.items():
                values[name].append(function(logits, targets.to(logits.device)))
        return {name: torch.cat(parts) for name, parts in values.items()}

    def run_head(self, rows: Tensor) -> Tensor:
        """The model's own head (with its scales and softcaps) on `rows` `[row, hidden]`; logits `[row, vocabulary]`."""
        output = with_states(self._backbone_output, rows[None])
        args, kwargs = self._calls["head"]
        assert self._backbone is not None
        with replaced_forward(self._backbone, lambda *_, **__: output):
            result = self._anatomy.head_owner(*args, **kwargs)
        logits: Tensor = result.logits if hasattr(result, "logits") else first_states(result)
        return logits[0]

    def _rows(self, states: Tensor | None) -> Tensor:
        assert states is not None
        samples, positions = self.answer_positions
        return states[samples.to(states.device), positions.to(states.device)]


@contextmanager
def captured_forward(
    anatomy: Anatomy,
    inputs: Mapping[str, Any],
    labels: Tensor,
    query_weights: Tensor,
    blocks: Sequence[int],
    attention: AttentionBackend = "auto",
) -> Iterator[CapturedForward]:
    """Run the model once and keep what is needed; the tail can be run again until the context is left.

    query_weights: `[batch, pool, seq]`; without pools no attention is summed. blocks: whose outputs to keep.
    attention: which code computes attention and what tokens receive of it.
    Raises UnsupportedModelError where no decoder attention went through transformers' attention interface.
    """
    roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(REGISTRY_LOCK)
        stack.enter_context(_evaluating(anatomy))
        recorder = stack.enter_context(_recording_attention(anatomy, query_weights, roles, attention))
        forward = CapturedForward(anatomy, recorder, roles, roles.targets(labels))
        if anatomy.row_wise is not None and anatomy.n_blocks - 1 not in blocks:
            shape = (labels.shape[0], labels.shape[1])
            stack.enter_context(narrowed(anatomy.row_wise, forward.answer_positions, shape))
        stack.enter_context(packed_vision(anatomy.model, anatomy.decoder_config))
        stack.enter_context(shared_images(anatomy.model))
        with ExitStack() as running:
            running.enter_context(_capturing(anatomy, forward, blocks))
            if anatomy.runs_on_rows and anatomy.n_blocks - 1 not in blocks:
                running.enter_context(_last_block_on_rows(forward))
            recorder.is_recording = query_weights.shape[1] > 0
            anatomy.model(**inputs, **_no_cache(anatomy.model))
            recorder.is_recording = False
        if query_weights.shape[1] and forward.n_recorded == 0:
            raise UnsupportedModelError(
                f"{type(anatomy.model).__name__}: none of its decoder blocks uses transformers' attention interface, "
                "so the attention that tokens receive can't be read; choose another model (docs/models.md)"
            )
        yield forward


def plain_logits(anatomy: Anatomy, inputs: Mapping[str, Any]) -> Tensor:
    """The logits of the untouched model in evaluation mode, not compiled; `[batch, seq, vocabulary]`.

    Raises UnsupportedModelError where the model's code doesn't fit the installed transformers.
    """
    with torch.no_grad(), _evaluating(anatomy), torch.compiler.set_stance("force_eager"):
        try:
            output = anatomy.model(**inputs, **_no_cache(anatomy.model))
        except (AttributeError, TypeError) as error:
            raise UnsupportedModelError(
                f"{type(anatomy.model).__name__}: its own forward fails under transformers {transformers.__version__} "
                f"({error}); try another version of transformers"
            ) from error
    logits: Tensor = output.logits
    return logits


@contextmanager
def _capturing(anatomy: Anatomy, forward: CapturedForward, blocks: Sequence[int]) -> Iterator[None]:
    """Hooks for the time of the forward: remember calls and outputs, and spare the head all but one row."""

    def keep_call(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            forward._calls[name] = (args, kwargs)

        return hook

    def keep_block(index: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if index and not are_same(given_states(args, kwargs), forward._passed_on):
                forward.first_block = index
            forward._passed_on = first_states(output)
            forward._block_outputs[index] = with_states(output, None)
            if index in blocks:
                forward.states[index] = first_states(output)

        return hook

    def keep_last(_module: nn.Module, _args: Any, output: Any) -> None:
        forward._passed_on = None
        forward._last_states = first_states(output)

    def note_backbone(module: nn.Module, _args: Any) -> None:
        if forward._backbone is None:
            forward._backbone = module

    def keep_output(module: nn.Module, _args: Any, output: Any) -> Any:
        if module is not forward._backbone:
            return output
        forward._backbone_output = with_states(output, None)
        return with_states(output, forward.final_rows()[None, :1])

    handles = [
        anatomy.decoder.register_forward_pre_hook(keep_call("decoder"), with_kwargs=True),
        anatomy.head_owner.register_forward_pre_hook(keep_call("head"), with_kwargs=True),
        *(
            block.register_forward_hook(keep_block(index), with_kwargs=True)
            for index, block in enumerate(anatomy.blocks)
        ),
        anatomy.decoder.register_forward_hook(keep_last),
        *(module.register_forward_pre_hook(note_backbone) for module in anatomy.backbones),
        *(module.register_forward_hook(keep_output) for module in anatomy.backbones),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _last_block_on_rows(forward: CapturedForward) -> Iterator[None]:
    """Run the last block for the rows alone; what it is asked to give elsewhere are zeros."""
    block, rows = forward._anatomy.blocks[-1], Rows.of(forward._roles.predicts_answer)
    whole = block.forward

    def on_rows(*args: Any, **kwargs: Any) -> Any:
        forward._last_block = LastBlock(whole, forward._recorder, (args, kwargs), rows)
        return forward._last_block.output

    with replaced_forward(block, on_rows):
        yield


@contextmanager
def _recording_attention(
    anatomy: Anatomy, weights: Tensor, roles: TokenRoles, attention: AttentionBackend
) -> Iterator[AttentionRecorder]:
    """Register a recorder under the name that the decoder's attention uses now.

    The name stays, since some models branch on it ("eager", "sdpa"); only the function behind it changes.
    """
    recorder = AttentionRecorder(anatomy.blocks, weights, roles, attention)
    with _readable_implementation(anatomy) as name, recording(AttentionInterface._global_mapping, name, recorder):
        yield recorder


@contextmanager
def _readable_implementation(anatomy: Anatomy) -> Iterator[str]:
    """The decoder's attention implementation; other than "sdpa" and "eager" is switched to "sdpa" meanwhile."""
    name = anatomy.decoder_config._attn_implementation
    if name in ("sdpa", "eager"):
        yield name
        return
    configs: dict[int, Any] = {id(m.config): m.config for m in anatomy.model.modules() if hasattr(m, "config")}
    before = [(config, config._attn_implementation) for config in configs.values()]
    anatomy.model.set_attn_implementation("sdpa")  # type: ignore[operator]
    try:
        yield "sdpa"
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation


@contextmanager
def _evaluating(anatomy: Anatomy) -> Iterator[None]:
    """Evaluation mode without a cache of keys; each module's own mode afterwards."""
    training = [module for module in anatomy.model.modules() if module.training]
    config, use_cache = anatomy.decoder_config, getattr(anatomy.decoder_config, "use_cache", None)
    anatomy.model.eval()
    try:
        if use_cache:  # many models that take use_cache don't name it in their forward
            config.use_cache = False
        yield
    finally:
        if use_cache:
            config.use_cache = use_cache
        for module in training:
            module.training = True


def _stub_block(kept_output: Any, states: Tensor | Callable[[Tensor], Tensor] | None) -> Callable[..., Any]:
    """A forward that returns what the block returned, but for its states.

    states: to return; None returns those that it is given, a function what that makes of them.
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        if isinstance(states, Tensor):
            return with_states(kept_output, states)
        given = given_states(args, kwargs)
        return with_states(kept_output, given if states is None else states(given))

    return forward


def _no_cache(model: nn.Module) -> dict[str, bool]:
    parameters = inspect.signature(model.forward).parameters
    return {"use_cache": False} if "use_cache" in parameters else {}


def _split(rows: Tensor, targets: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size], targets[start : start + size]

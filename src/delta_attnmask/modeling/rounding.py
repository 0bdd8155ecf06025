"""How far rounding alone moves a model's losses: the yardstick for two runs that add up in another order."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from delta_attnmask.batches import TokenRoles
from delta_attnmask.errors import UnsupportedModelError
from delta_attnmask.modeling.anatomy import Anatomy
from delta_attnmask.modeling.capture import nats, rows_of
from delta_attnmask.modeling.running import evaluating, first_states, no_cache, with_states

_EXACT_HALF, _EXACT_FULL = 1e-3, 1e-4  # nats by which any token's loss may differ without a question
_HALF = 1e-6  # the unit in the last place of half precisions is larger
_N_DRAWS = 8  # at most: a choice of experts that hangs on the last place doesn't flip in every draw
EVERY_BLOCK = slice(None)
INTO_LAST = slice(-2, -1)  # the one before the last


class Rounding:
    """The untouched model's losses at the labelled positions, and how far rounding moves them.

    In half precision two right kernels give losses that differ by 0.001 to 0.1 nats, which depends on the model. So the
    model is asked: its blocks' outputs are moved by up to one unit in the last place, at random, and the losses show
    what that does. Over 63 families in bfloat16 and float16 right kernels move them half to twice as far.

    losses: `[row]`, nats, float32. unit: of the last place, relative, in the coarsest precision that was seen.
    Raises UnsupportedModelError where the model's own forward fails.
    """

    def __init__(self, anatomy: Anatomy, inputs: Mapping[str, Any], labels: Tensor):
        roles = TokenRoles.of(inputs, labels, anatomy.image_token_id)
        self._anatomy, self._inputs = anatomy, inputs
        samples, positions = roles.predicts_answer.nonzero(as_tuple=True)
        self._places = samples, positions
        self._targets, self._shape = roles.targets(labels), labels.shape
        self._spreads: dict[tuple[int | None, int], Tensor] = {}
        self.unit = 0.0
        with changed_outputs(anatomy.blocks[-1:], self._noted):
            self.losses = self._run()

    def allows(self, differences: Tensor, times: float, blocks: slice = EVERY_BLOCK) -> bool:
        """Whether rounding at the outputs of `blocks` accounts for these differences of losses, `[row]`.

        times: how far beyond what rounding does, in the mean and at the ninetieth percentile of the tokens.
        """
        if not len(differences) or differences.abs().max() <= (_EXACT_HALF if self.unit > _HALF else _EXACT_FULL):
            return True
        found = _mean_and_high(differences)
        return any(bool((found <= times * self._spread(blocks, draw)).all()) for draw in range(_N_DRAWS))

    def _spread(self, blocks: slice, draw: int) -> Tensor:
        key = (blocks.start, draw)
        if key not in self._spreads:
            generator = torch.Generator().manual_seed(draw)
            with changed_outputs(self._anatomy.blocks[blocks], lambda states: self._moved(states, generator)):
                differences = self._run() - self.losses
            self._spreads[key] = _mean_and_high(differences[differences.isfinite()])
        return self._spreads[key]

    def _moved(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """The states, each moved by up to one unit in the last place."""
        steps = (torch.rand(states.shape, generator=generator) * 2 - 1).to(states.device)
        largest = torch.finfo(states.dtype).max
        return (states.float() * (1 + self.unit * steps)).clamp(-largest, largest).to(states.dtype)

    def _run(self) -> Tensor:
        """The losses of the untouched model in evaluation mode, not compiled."""
        model = self._anatomy.model
        with torch.no_grad(), evaluating(self._anatomy), torch.compiler.set_stance("force_eager"):
            try:
                with self._head_on_rows():
                    logits = self._noted(model(**self._inputs, **no_cache(model)).logits)
            except (AttributeError, TypeError) as error:
                raise UnsupportedModelError(
                    f"{type(model).__name__}: its own forward fails under transformers {transformers.__version__} "
                    f"({error}); try another version of transformers"
                ) from error
        is_whole = logits.shape[:2] == self._shape
        rows = logits[tuple(index.to(logits.device) for index in self._places)] if is_whole else logits[0]
        return nats(rows.float(), self._targets.to(rows.device))

    @contextmanager
    def _head_on_rows(self) -> Iterator[None]:
        """Give the head the positions that are compared: logits of all take gigabytes for two long samples."""

        def narrow(_module: nn.Module, args: tuple[Any, ...]) -> Any:
            if not args or args[0].shape[:2] != self._shape:
                return args
            return rows_of(args[0], self._places)[None], *args[1:]

        head: nn.Module = self._anatomy.model.get_output_embeddings()  # type: ignore[operator]
        handle = head.register_forward_pre_hook(narrow)
        try:
            yield
        finally:
            handle.remove()

    def _noted(self, values: Tensor) -> Tensor:
        self.unit = max(self.unit, torch.finfo(values.dtype).eps)
        return values


def _mean_and_high(differences: Tensor) -> Tensor:
    """Mean and ninetieth percentile of their sizes, `[2]`; zeros of none."""
    if not len(differences):
        return torch.zeros(2)
    sizes = differences.abs().float().cpu()
    return torch.stack([sizes.mean(), sizes.quantile(0.9)])


@contextmanager
def changed_outputs(blocks: Iterable[nn.Module], change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    handles = [
        block.register_forward_hook(lambda _module, _args, output: with_states(output, change(first_states(output))))
        for block in blocks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""Run batches so that one bad sample takes no other with it: a batch that fails is halved."""

from collections.abc import Callable
from typing import TypeVar

import torch

from delta_attnmask.errors import UnsupportedModelError

Item = TypeVar("Item")

FATAL = (UnsupportedModelError, torch.AcceleratorError)  # about the model or the device, not about a row


def run_halving(
    batch: list[Item],
    run: Callable[[list[Item]], None],
    on_failure: Callable[[Item, str], None],
    on_memory: Callable[[int], None] = lambda n_items: None,
) -> None:
    """Run a batch; after a failure its halves, down to single items, which are reported with the reason.

    on_memory is told how many items were too many.
    """
    try:
        run(batch)
        return
    except FATAL:
        raise
    except Exception as error:  # noqa: BLE001 - a model's code may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        ran_out_of_memory = isinstance(error, torch.OutOfMemoryError)
    # Not inside `except`: the traceback there still holds the tensors of the failed call.
    if len(batch) == 1:
        on_failure(batch[0], f"the model refuses the row: {reason}")
        return
    if ran_out_of_memory:
        torch.cuda.empty_cache()
        on_memory(len(batch))
    middle = len(batch) // 2
    for half in (batch[:middle], batch[middle:]):
        run_halving(half, run, on_failure, on_memory)

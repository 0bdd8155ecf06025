"""Run batches so that one bad sample takes no other with it: a batch that fails is halved."""

from collections.abc import Callable
from typing import TypeVar

import torch

from delta_attnmask.errors import ReasonCode, RowError, SettingsError, UnsupportedModelError

Item = TypeVar("Item")

# About the model, the settings or the device, not about a row.
FATAL = (UnsupportedModelError, SettingsError, torch.AcceleratorError)


def run_halving(
    batch: list[Item],
    run: Callable[[list[Item]], None],
    on_failure: Callable[[Item, RowError], None],
    on_memory: Callable[[list[Item]], None] = lambda batch: None,
) -> None:
    """Run a batch; after a failure its halves, down to single items, which are reported with the reason.

    Where memory runs out, what the allocator keeps is handed back first, and a single item is tried once more: batches
    before it may have left no room in one piece. on_memory is given each batch that was too much and is halved.
    Raises what is fatal.
    """
    reason, is_memory = _attempt(run, batch)
    if is_memory:
        torch.cuda.empty_cache()
    if is_memory and len(batch) == 1:
        reason, is_memory = _attempt(run, batch)
    if not reason:
        return
    if len(batch) == 1:
        on_failure(batch[0], RowError(ReasonCode.MODEL_REFUSED, f"the model refuses the row: {reason}"))
        return
    if is_memory:
        on_memory(batch)
    middle = len(batch) // 2
    for half in (batch[:middle], batch[middle:]):
        run_halving(half, run, on_failure, on_memory)


def _attempt(run: Callable[[list[Item]], None], batch: list[Item]) -> tuple[str, bool]:
    """Why the batch failed, in a line, and whether for want of memory; an empty line where it didn't.

    Nothing of the error is kept: its traceback holds the tensors of the failed call.
    """
    try:
        run(batch)
    except FATAL:
        raise
    except Exception as error:  # noqa: BLE001 - a model's code may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return reason, isinstance(error, torch.OutOfMemoryError)
    return "", False

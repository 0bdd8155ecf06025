"""From rows to batches on the device, the same for everything that runs a model over rows.

    units of records → encoded by workers → windows that fit memory → planned, collated, moved → batches

Beside a device with cores of its own every arrow runs ahead of the next, across units; on a CPU they take turns.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from delta_attnmask.batches import EncodedBatch
from delta_attnmask.encoding.collate import collate, plan_batches
from delta_attnmask.encoding.encoder import EncodedSample
from delta_attnmask.errors import DataError, ReasonCode, RowError, SettingsError, UnsupportedModelError
from delta_attnmask.executing.workers import Workers, ahead
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.devices import free_memory, is_out_of_memory
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.running import with_positions
from delta_attnmask.modeling.vision import image_cost
from delta_attnmask.records import Record

Encoded = TypeVar("Encoded")
Item = TypeVar("Item")

_N_AHEAD = 2  # batches that wait on the device
_ROWS_AT_ONCE = 32  # handed to the encoder, by which more may be held
_ROWS_OF_A_WORKER = 8
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Room:
    """How much there is at a time. batch_tokens: in a batch; waiting_bytes: of encoded rows that wait for the model."""

    batch_tokens: int
    waiting_bytes: int


_ON_CPU = Room(8192, 256 << 20)
_SMALL_GPU = Room(8192, 2 << 30)
_BY_FREE_GIB = {68: Room(32768, 4 << 30), 32: Room(16384, 2 << 30)}  # a 2B and a 7B model on 80 GB, in half precision


def choose_room(free_bytes: int | None) -> Room:
    """What suits the memory that a GPU has left beside the model, None for a CPU (`free_memory`)."""
    if free_bytes is None:
        return _ON_CPU
    return next((room for gib, room in _BY_FREE_GIB.items() if free_bytes >= gib << 30), _SMALL_GPU)


@dataclass(frozen=True)
class Unit:
    """Rows that are done together: their number, and the records, which are read when they are needed."""

    index: int
    n_rows: int
    records: Iterable[Record]


@dataclass(frozen=True)
class Window(Generic[Encoded]):
    """Rows of a unit that are held at the same time; is_last: the unit has no further ones."""

    unit: int
    rows: list[tuple[Record, Encoded]]
    is_last: bool


def is_fatal(error: Exception) -> bool:
    """Whether it is about the model, the settings or the device, not about a row or about how many there are."""
    is_about_more = isinstance(error, UnsupportedModelError | SettingsError | torch.AcceleratorError)
    return is_about_more and not is_out_of_memory(error)


def reason_of(error: Exception) -> str:
    """What is wrong, in a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def default_workers(device: torch.device) -> int:
    """Worker processes for a device: none where it is the CPU itself, else up to 8, shared among the GPUs."""
    if device.type == "cpu":
        return 0
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_devices = torch.cuda.device_count() if device.type == "cuda" else 1
    return max(1, min(_MOST_WORKERS, n_cores // max(1, n_devices) - 1))


class EncodedRows(Generic[Encoded]):
    """Encodes units of rows in windows, in order.

    encode: gives an outcome for each record of a chunk, or for the first ones (`RowEncoder`). n_bytes: of an outcome.
    n_workers: processes that encode; None chooses by the device. max_bytes: of a window, or one row.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[Record]], list[Encoded]],
        n_bytes: Callable[[Encoded], int],
        device: torch.device,
        n_workers: int | None = None,
        max_bytes: int | None = None,
        chunk: int | None = None,
    ) -> None:
        n_workers = default_workers(device) if n_workers is None else n_workers
        self.has_own_cores = device.type != "cpu"  # it computes while this process does other things
        self.max_bytes = max_bytes or choose_room(free_memory(device)).waiting_bytes
        self._n_bytes = n_bytes
        self._workers: Workers[Record, Encoded] = Workers(
            encode,
            n_workers,
            n_bytes=n_bytes,
            max_bytes=self.max_bytes,
            chunk=chunk or (_ROWS_OF_A_WORKER if n_workers else _ROWS_AT_ONCE),
        )

    def windows(self, units: Iterable[Unit]) -> Iterator[Window[Encoded]]:
        """Every unit in one window, or in several where its rows take much memory; ahead beside a GPU."""
        windows = self._windows(units)
        return ahead(windows) if self.has_own_cores else windows

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()

    def _windows(self, units: Iterable[Unit]) -> Iterator[Window[Encoded]]:
        begun: list[Unit] = []  # units whose records are being read, the first one's windows being made

        def read() -> Iterator[Record]:
            for unit in units:
                begun.append(unit)
                yield from unit.records

        stream = self._workers.map(read())
        for first in stream:
            rows, n_held = [first], self._n_bytes(first[1])
            unit, n_left = begun[0], begun[0].n_rows - 1
            while True:
                if n_left == 0 or n_held >= self.max_bytes:
                    yield Window(unit.index, rows, is_last=n_left == 0)
                    rows, n_held = [], 0
                if n_left == 0:
                    break
                row = next(stream, None)
                if row is None:
                    raise DataError(f"unit {unit.index} has {unit.n_rows - n_left} rows, expected {unit.n_rows}")
                rows.append(row)
                n_held, n_left = n_held + self._n_bytes(row[1]), n_left - 1
            begun.pop(0)


class Batches:
    """Cuts samples into batches for one model, and runs them so that a bad sample takes no other with it.

    batch_tokens: upper bound of samples times longest sample in a batch, None for what suits the device; made smaller
        when memory runs out.
    """

    def __init__(self, loaded: LoadedModel, pad_token_id: int, batch_tokens: int | None) -> None:
        self.batch_tokens = batch_tokens or choose_room(free_memory(loaded.device)).batch_tokens
        self._loaded, self._pad_token_id = loaded, pad_token_id
        self._image_cost = image_cost(examine(loaded.model))

    def plan(self, samples: Sequence[EncodedSample]) -> list[list[EncodedSample]]:
        return plan_batches(samples, self.batch_tokens, self._image_cost)

    def collate(self, samples: Sequence[EncodedSample]) -> EncodedBatch:
        """The batch on the model's device, pixels in the model's precision."""
        batch = collate(samples, self._pad_token_id)
        batch = replace(batch, inputs=with_positions(self._loaded.model, batch.inputs))
        return batch.to(self._loaded.device, self._loaded.dtype)

    def run(
        self,
        samples: list[EncodedSample],
        function: Callable[[EncodedBatch], None],
        on_failure: Callable[[EncodedSample, RowError], None],
        collated: EncodedBatch | None = None,
    ) -> None:
        """Call `function` with the samples as a batch (`collated` if that is at hand), or as several where it fails.

        on_failure: is given each sample on which the model fails alone. Raises what is about more than a sample.
        """
        is_too_large = len(samples) > 1 and len(samples) * _longest(samples) > self.batch_tokens
        for part in self.plan(samples) if is_too_large else [samples]:
            ready = collated if part is samples else None

            def run(
                some: list[EncodedSample], whole: list[EncodedSample] = part, ready: EncodedBatch | None = ready
            ) -> None:
                function(ready if ready is not None and some is whole else self.collate(some))

            run_halving(part, run, on_failure, lambda some: self.shrink(len(some), _longest(some)))

    def shrink(self, n_samples: int, n_tokens: int) -> None:
        """Make batches smaller after one of so many samples, the longest of `n_tokens`, was too much."""
        self.batch_tokens = min(self.batch_tokens, n_samples * n_tokens // 2)

    def ahead(self, samples: Sequence[EncodedSample]) -> Iterator[tuple[list[EncodedSample], EncodedBatch | None]]:
        """The planned batches, each with its collated form; None where that fails.

        `run` then meets the same error, and finds the sample that it comes from.
        """
        for batch in self.plan(samples):
            collated = None
            try:
                collated = self.collate(batch)
            except Exception as error:  # a model's code may raise anything
                if is_fatal(error):
                    raise
            yield batch, collated


def begin_copy(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors of one device to the CPU; what is returned waits for the copies and gives them.

    Called when the next batch is under way, it waits for nothing that a GPU has been given meanwhile.
    """
    if not tensors or tensors[0].device.type != "cuda":
        copies = [tensor.cpu() for tensor in tensors]
        return lambda: copies
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> list[Tensor]:
        done.synchronize()
        return copies

    return wait


def in_step(items: Iterable[Item], device: torch.device) -> Iterator[Item]:
    """The items, some ahead beside a device with cores of its own, each in its turn on a CPU."""
    return iter(items) if device.type == "cpu" else ahead(items, _N_AHEAD)


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
    except Exception as error:  # a model's code may raise anything
        if is_fatal(error):
            raise
        return reason_of(error), is_out_of_memory(error)
    return "", False


def _longest(samples: Sequence[EncodedSample]) -> int:
    return max(sample.n_tokens for sample in samples)

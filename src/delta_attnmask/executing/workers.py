"""Call a function on rows in order: in this process, or ahead of whoever takes the results in worker processes.

Beside a GPU, encoding costs more CPU time than one process has, so it runs in several. Where the same cores compute,
nothing is gained by running ahead, and everything takes turns (`n_workers=0`).

Tensors come back from a worker in one block of shared memory a chunk, whatever the results look like.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from io import BytesIO
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from delta_attnmask.executing.process import keep_freed_memory

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_END = object()
_ALIGNMENT = 64  # bytes; every tensor may be viewed in its own type
_SECONDS_BETWEEN_LOOKS = 2.0


class Workers(Generic[Item, Outcome]):
    """Calls `function` on chunks of items and gives the outcomes in order.

    function: gives an outcome for each item of a chunk, or for the first ones, at least one: where they take much
        memory, or where the next one raises an error. The rest is then handed to it again. It must be picklable where
        processes can't be forked.
    n_bytes: of an outcome. max_bytes: of the outcomes that wait in worker processes, about.
    chunk: items that are handed over at a time.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Item]], list[Outcome]],
        n_workers: int = 0,
        *,
        n_bytes: Callable[[Outcome], int] = lambda outcome: 0,
        max_bytes: int = 1 << 30,
        chunk: int = 32,
    ) -> None:
        self.n_workers = n_workers
        self._function, self._n_bytes, self._max_bytes, self._chunk = function, n_bytes, max_bytes, chunk
        self._pool: ProcessPoolExecutor | None = None
        self._n_ahead = n_workers

    def map(self, items: Iterable[Item]) -> Iterator[tuple[Item, Outcome]]:
        """Each item with its outcome. Items are taken as they are needed; what `function` raises is raised here."""
        chunks = _cut(items, self._chunk)
        return self._ahead(chunks) if self.n_workers else self._in_turn(chunks)

    def close(self) -> None:
        """End the worker processes; the next `map` starts others."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _in_turn(self, chunks: Iterator[Sequence[Item]]) -> Iterator[tuple[Item, Outcome]]:
        for chunk in chunks:
            while chunk:
                outcomes = self._function(chunk)
                yield from zip(chunk, outcomes, strict=False)
                chunk = chunk[len(outcomes) :]

    def _ahead(self, chunks: Iterator[Sequence[Item]]) -> Iterator[tuple[Item, Outcome]]:
        waiting: deque[tuple[Sequence[Item], Future[_Shipment]]] = deque()
        error: Exception | None = None  # of the items; raised once all before it are done
        try:
            while True:
                try:
                    for chunk in islice(chunks, max(0, self._n_ahead - len(waiting))):
                        waiting.append((chunk, self._submit(chunk)))
                except Exception as found:  # noqa: BLE001 - raised below
                    error = found
                if not waiting and error is not None:
                    raise error
                if not waiting:
                    return
                chunk, future = waiting.popleft()
                outcomes: list[Outcome] = _unpack(self._result(future))
                if rest := chunk[len(outcomes) :]:
                    waiting.appendleft((rest, self._submit(rest)))
                self._look_ahead(sum(map(self._n_bytes, outcomes)))
                yield from zip(chunk, outcomes, strict=False)
        finally:
            for _, future in waiting:
                future.cancel()

    def _look_ahead(self, n_bytes: int) -> None:
        """Let as many chunks wait as have room, going by the last one."""
        self._n_ahead = max(1, min(2 * self.n_workers, self._max_bytes // max(1, n_bytes)))

    def _submit(self, chunk: Sequence[Item]) -> "Future[_Shipment]":
        if self._pool is None:
            method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
            context = multiprocessing.get_context(method)
            self._pool = ProcessPoolExecutor(self.n_workers, context, _begin, (self._function, os.getpid()))
        return self._pool.submit(_call, chunk)

    def _result(self, future: "Future[_Shipment]") -> "_Shipment":
        try:
            return future.result()
        except BrokenProcessPool as error:
            self.close()
            raise RuntimeError(
                "a worker process died, perhaps out of memory; use fewer --workers (0 encodes in this one)"
            ) from error


def ahead(items: Iterable[Item], n: int = 1) -> Iterator[Item]:
    """The same items, up to `n` of them made in a thread before they are asked for; errors come in their place."""
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        waiting = deque(thread.submit(next, iterator, _END) for _ in range(n))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(thread.submit(next, iterator, _END))
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()
            thread.submit(_close, iterator).result()


def _close(iterator: Iterator[Any]) -> None:
    if hasattr(iterator, "close"):
        iterator.close()


def _cut(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    """Chunks of items; what their iterator raises comes after all items before it."""
    iterator, error = iter(items), None
    while error is None:
        chunk: list[Item] = []
        try:
            chunk.extend(islice(iterator, size))
        except Exception as found:  # noqa: BLE001 - raised below
            error = found
        if chunk:
            yield chunk
        elif error is None:
            return
    raise error


# In a worker process

_function: Callable[[Sequence[Any]], list[Any]]


def _begin(function: Callable[[Sequence[Any]], list[Any]], parent: int) -> None:
    """Get a worker process ready: one thread, Ctrl-C left to the parent, and an end when the parent has died."""
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    keep_freed_memory()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _call(chunk: Sequence[Any]) -> "_Shipment":
    return _pack(_function(chunk))


# Between processes


class _Shipment(NamedTuple):
    """Results without their tensors' values, and these in one block, which is shared and not copied."""

    pickled: bytes
    block: Tensor
    edges: list[tuple[int, int]]


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        values = value.detach().contiguous().reshape(-1).view(torch.uint8)
        return _restore, (pickle.PickleBuffer(values.numpy().data), value.dtype, tuple(value.shape))


def _restore(values: memoryview, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not len(values):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(values, dtype=torch.uint8).view(dtype).reshape(shape)


def _pack(results: Any) -> _Shipment:
    buffers: list[pickle.PickleBuffer] = []
    pickled = BytesIO()
    _Pickler(pickled, protocol=5, buffer_callback=buffers.append).dump(results)
    views = [buffer.raw() for buffer in buffers]
    edges, at = [], 0
    for view in views:
        edges.append((at, at + view.nbytes))
        at += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
    # As torch's own `default_collate` does: `share_memory_` would copy a block that has nothing in it yet.
    storage = torch.UntypedStorage._new_shared(at)  # type: ignore[no-untyped-call]
    block = torch.empty(0, dtype=torch.uint8).set_(storage)
    target = block.numpy().data
    for view, (start, stop) in zip(views, edges, strict=True):
        target[start:stop] = view
    return _Shipment(pickled.getvalue(), block, edges)


def _unpack(shipment: _Shipment) -> Any:
    source = shipment.block.numpy().data
    return pickle.loads(shipment.pickled, buffers=[source[start:stop] for start, stop in shipment.edges])

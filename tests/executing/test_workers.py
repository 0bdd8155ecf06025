"""Items are worked on in order, in this process or ahead in others, and an error comes at its own item."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import pytest
import torch

from delta_attnmask.executing.workers import Workers, ahead


def describe(items: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "tensors": [torch.full((300, 7), float(item)), torch.tensor(item), torch.zeros(0, 3)],
            "half": torch.ones(3, dtype=torch.bfloat16) * item,
            "pid": os.getpid(),
        }
        for item in items
    ]


def at_most_two(items: Sequence[int]) -> list[int]:
    return [-item for item in items[:2]]


def fail_at_4(items: Sequence[int]) -> list[int]:
    good = [item for item in items if item < 4]
    if not good:
        raise OSError("planned")
    return good


def end(items: Sequence[int]) -> list[int]:
    os._exit(1)


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_every_item_comes_with_its_outcome_in_order(n_workers: int) -> None:
    workers: Workers[int, dict[str, Any]] = Workers(describe, n_workers, chunk=4)
    pids: set[int] = set()
    for _ in range(2):  # the processes are used again
        found = list(workers.map(range(21)))
        assert [item for item, _ in found] == [*range(21)]
        for item, outcome in found:
            filled, alone, empty = outcome["tensors"]
            assert torch.equal(filled, torch.full((300, 7), float(item)))
            assert (int(alone), tuple(empty.shape)) == (item, (0, 3))
            assert torch.equal(outcome["half"], torch.ones(3, dtype=torch.bfloat16) * item)
            filled += 1  # it is no one else's
        pids |= {outcome["pid"] for _, outcome in found}
    assert (os.getpid() in pids) == (n_workers == 0)
    assert len(pids) <= max(1, n_workers)
    workers.close()
    assert not [child for child in psutil.Process().children() if child.pid in pids]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_what_a_call_leaves_is_handed_over_again(n_workers: int) -> None:
    workers: Workers[int, int] = Workers(at_most_two, n_workers, chunk=5)
    assert list(workers.map(range(12))) == [(item, -item) for item in range(12)]
    assert list(workers.map([])) == []
    workers.close()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_error_comes_after_all_that_is_before_it(n_workers: int) -> None:
    workers: Workers[int, int] = Workers(fail_at_4, n_workers, chunk=3)
    found: list[int] = []
    with pytest.raises(OSError, match="planned"):
        found.extend(item for item, _ in workers.map(range(9)))
    assert found == [0, 1, 2, 3]
    workers.close()


@pytest.mark.parametrize("n_workers", [0, 2])
def test_an_error_of_the_items_comes_after_those_before_it(n_workers: int) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("planned")

    workers: Workers[int, int] = Workers(at_most_two, n_workers, chunk=3)
    found: list[int] = []
    with pytest.raises(ValueError, match="planned"):
        found.extend(item for item, _ in workers.map(items()))
    assert found == [*range(5)]
    workers.close()


def test_few_chunks_wait_where_outcomes_are_large() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(40):
            taken.append(item)
            yield item

    workers: Workers[int, int] = Workers(at_most_two, 2, n_bytes=lambda outcome: 100, max_bytes=200, chunk=1)
    for item, _ in workers.map(items()):
        assert item < 4 or len(taken) <= item + 4
    workers.close()


def test_a_worker_that_dies_is_reported_and_replaced() -> None:
    workers: Workers[int, int] = Workers(end, 1)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"a worker process died.*--workers"):
            list(workers.map([1]))
    workers.close()


def test_ahead_makes_some_items_before_they_are_asked_for_and_no_more() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(9):
            made.append(item)
            yield item

    stream = ahead(items(), 2)
    assert next(stream) == 0
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert made == [0, 1, 2]
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_ahead_gives_errors_in_their_place_and_closes_what_it_reads() -> None:
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from (0, 1)
            raise ValueError("planned")
        finally:
            closed.append(True)

    found: list[int] = []
    with pytest.raises(ValueError, match="planned"):
        found.extend(ahead(items(), 3))
    assert (found, closed) == ([0, 1], [True])
    stream = ahead(items())
    assert next(stream) == 0
    stream.close()
    assert closed == [True, True]

"""Run units of work in this process: the next unit is prepared while the present one is computed.

That pays where another device computes. Where the same cores do, a thread that prepares takes from the one that
computes more than it gains (docs/performance.md), so `overlaps=False` lets them take turns.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from delta_attnmask.executing.contract import (
    NO_FAULTS,
    TRIES,
    Answer,
    DoneT,
    Failure,
    Faults,
    Worker,
    describe,
    trace_of,
)

Unit = TypeVar("Unit")
Prepared = TypeVar("Prepared")
Done = TypeVar("Done")
WorkerT = TypeVar("WorkerT", bound=Worker[Any, Any])


class LocalPool(Generic[WorkerT, DoneT]):
    """One worker in this process. A unit that fails is tried again behind all others.

    An error that ends a worker ends the run, since a process can't replace itself.
    """

    def __init__(
        self, worker: WorkerT, faults: Faults = NO_FAULTS, tries: int = TRIES, *, overlaps: bool = True
    ) -> None:
        self._worker, self._faults, self._tries, self._overlaps = worker, faults, tries, overlaps

    def ask(self, question: Callable[[WorkerT], Answer]) -> Answer:
        return question(self._worker)

    def run(self, units: Sequence[int]) -> Iterator[DoneT | Failure]:
        n_tries: Counter[int] = Counter()
        to_do = list(units)
        while to_do:
            again = []
            for unit, prepared in ahead(to_do, self._worker.prepare, overlaps=self._overlaps):
                try:
                    done = self._worker.compute(prepared.result())
                except (*self._faults.ends_run, *self._faults.ends_worker):
                    raise
                except Exception as error:  # noqa: BLE001 - whatever a unit meets; it is told at the end
                    n_tries[unit] += 1
                    if n_tries[unit] < self._tries:
                        again.append(unit)
                    else:
                        yield Failure(unit, n_tries[unit], describe(error), trace_of(error))
                else:
                    yield done
            to_do = again


def run_units(
    units: Iterable[Unit],
    prepare: Callable[[Unit], Prepared],
    compute: Callable[[Prepared], Done],
    *,
    overlaps: bool = True,
) -> Iterator[Done]:
    """Yield `compute(prepare(unit))` for each unit, in order.

    `prepare` runs one unit ahead in a thread of its own. An exception of either ends the run at its unit;
    everything yielded before stands.
    """
    for _, prepared in ahead(units, prepare, overlaps=overlaps):
        yield compute(prepared.result())


def ahead(
    units: Iterable[Unit], prepare: Callable[[Unit], Prepared], *, overlaps: bool = True
) -> Iterator[tuple[Unit, Future[Prepared]]]:
    """Each unit with what `prepare` makes of it, begun in a thread of its own before the unit in front is done with."""
    if not overlaps:
        yield from ((unit, _in_turn(prepare, unit)) for unit in units)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
        waiting: tuple[Unit, Future[Prepared]] | None = None
        for unit in units:
            upcoming = unit, pool.submit(prepare, unit)
            if waiting is not None:
                yield waiting
            waiting = upcoming
        if waiting is not None:
            yield waiting


def _in_turn(prepare: Callable[[Unit], Prepared], unit: Unit) -> Future[Prepared]:
    prepared: Future[Prepared] = Future()
    try:
        prepared.set_result(prepare(unit))
    except Exception as error:  # noqa: BLE001 - raised where the result is asked for, as a thread's would be
        prepared.set_exception(error)
    return prepared

"""Run units of work in this process: the next unit is prepared while the present one is computed."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Unit = TypeVar("Unit")
Prepared = TypeVar("Prepared")
Done = TypeVar("Done")


def run_units(
    units: Iterable[Unit], prepare: Callable[[Unit], Prepared], compute: Callable[[Prepared], Done]
) -> Iterator[Done]:
    """Yield `compute(prepare(unit))` for each unit, in order.

    `prepare` runs one unit ahead in a thread of its own. An exception of either ends the run at its unit;
    everything yielded before stands.
    """
    for _, prepared in ahead(units, prepare):
        yield compute(prepared.result())


def ahead(units: Iterable[Unit], prepare: Callable[[Unit], Prepared]) -> Iterator[tuple[Unit, Future[Prepared]]]:
    """Each unit with what `prepare` makes of it, begun in a thread of its own before the unit in front is done with."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
        waiting: tuple[Unit, Future[Prepared]] | None = None
        for unit in units:
            upcoming = unit, pool.submit(prepare, unit)
            if waiting is not None:
                yield waiting
            waiting = upcoming
        if waiting is not None:
            yield waiting

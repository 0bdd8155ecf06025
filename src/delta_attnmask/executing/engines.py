"""What an engine is handed and what it gives back, and the engine that runs units in this process."""

import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

Done_co = TypeVar("Done_co", covariant=True)
Held_co = TypeVar("Held_co", covariant=True)
Answer = TypeVar("Answer")
DoneT = TypeVar("DoneT")
WorkerT = TypeVar("WorkerT", bound="Worker[Any]")

TRIES = 3


class Worker(Protocol[Done_co]):
    """Holds what is expensive to make, such as a model, and does units; one done again has the same result again."""

    def run(self, units: Iterable[int]) -> Iterator[Done_co]:
        """Do the units in order and give one result for each; what it raises is about the first that has none."""
        ...


@dataclass(frozen=True)
class Failure:
    """A unit that failed each time it was tried. reason: one line; trace: where in the code, if known."""

    unit: int
    n_tries: int
    reason: str
    trace: str = ""


@dataclass(frozen=True)
class Faults:
    """What the errors of a worker mean; every other error is about the unit, which is tried again.

    ends_run: every unit would meet it. ends_worker: this worker can't continue, another could.
    """

    ends_run: tuple[type[Exception], ...] = ()
    ends_worker: tuple[type[Exception], ...] = ()


NO_FAULTS = Faults()


class Pool(Protocol[Held_co, Done_co]):
    """Workers that are ready."""

    def ask(self, question: Callable[[Held_co], Answer]) -> Answer:
        """What one of the workers answers."""
        ...

    def run(self, units: Sequence[int]) -> Iterator[Done_co | Failure]:
        """Do all units, each once if nothing fails; what comes of them, in any order.

        An error that ends the run is raised; what was given before stays.
        """
        ...


class LocalPool(Generic[WorkerT, DoneT]):
    """One worker in this process. A unit that fails is tried again after all others.

    An error that ends a worker ends the run, since a process can't replace itself.
    """

    def __init__(self, worker: WorkerT, faults: Faults = NO_FAULTS, tries: int = TRIES) -> None:
        self._worker, self._faults, self._tries = worker, faults, tries

    def ask(self, question: Callable[[WorkerT], Answer]) -> Answer:
        return question(self._worker)

    def run(self, units: Sequence[int]) -> Iterator[DoneT | Failure]:
        n_tries: Counter[int] = Counter()
        to_do = deque(units)
        while to_do:
            try:
                for done in self._worker.run(tuple(to_do)):
                    to_do.popleft()
                    yield done
            except (*self._faults.ends_run, *self._faults.ends_worker):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a unit meets; it is reported at the end
                unit = to_do.popleft()
                n_tries[unit] += 1
                if n_tries[unit] < self._tries:
                    to_do.append(unit)
                else:
                    yield Failure(unit, n_tries[unit], describe(error), trace_of(error))


def describe(error: BaseException) -> str:
    """An error in one line."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def trace_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))

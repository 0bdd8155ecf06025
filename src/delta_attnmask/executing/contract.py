"""What an engine is handed and what it gives back; the same for every engine.

A worker holds what is dear to make, such as a model, and does units. An engine knows nothing else of the work.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

Prepared = TypeVar("Prepared")
Done_co = TypeVar("Done_co", covariant=True)
Held_co = TypeVar("Held_co", covariant=True)
Answer = TypeVar("Answer")
DoneT = TypeVar("DoneT")

TRIES = 3


class Worker(Protocol[Prepared, Done_co]):
    """Does units in two steps, so that one can be prepared while the one before it is computed.

    A unit may be done more than once, and by several workers at a time; each time it must leave the same behind.
    """

    def prepare(self, unit: int) -> Prepared: ...

    def compute(self, prepared: Prepared) -> Done_co: ...


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

    ends_run: every unit would meet it. ends_worker: this worker can't go on, another could.
    """

    ends_run: tuple[type[Exception], ...] = ()
    ends_worker: tuple[type[Exception], ...] = ()


NO_FAULTS = Faults()


class Pool(Protocol[Held_co, Done_co]):
    """Workers that stand ready."""

    def ask(self, question: Callable[[Held_co], Answer]) -> Answer:
        """What one of the workers answers."""
        ...

    def run(self, units: Sequence[int]) -> Iterator[Done_co | Failure]:
        """Do all units, each once if nothing fails; what comes of them, in any order.

        An error that ends the run is raised; what was given before stands.
        """
        ...


def describe(error: BaseException) -> str:
    """An error in one line."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def trace_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))

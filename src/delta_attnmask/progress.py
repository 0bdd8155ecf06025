"""Progress: a bar with rate and time left in a terminal or a notebook, plain lines elsewhere. No torch here."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console

_SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Shows how far something has come. n_before: rows that were done before this start; its rate leaves them out."""

    def __call__(self, n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None: ...


def show_nothing(n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None:
    pass


def print_note(line: str) -> None:
    """Print what the user should know beside the result."""
    print(line, file=sys.stderr)


def is_watched(wanted: bool | None = None) -> bool:
    """Whether to show progress; if nobody says, in a terminal and in a notebook."""
    console = Console(stderr=True)
    return (console.is_terminal or console.is_jupyter) if wanted is None else wanted


@contextmanager
def show_progress(what: str, n_rows: int | None = None, *, shown: bool = True) -> Iterator[Advance]:
    """Give a function that shows how far `what` has come.

    n_rows: how many there are, if that is known already. shown: False shows nothing.
    """
    rate_of = _Rate()
    if not shown:
        yield show_nothing
        return
    if not is_watched():
        yield _plain_lines(what, rate_of)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    said = TextColumn("{task.fields[said]}")
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), said
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=n_rows, said="")

        def advance(n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None:
            text = ", ".join(rate_of(n_done, n_rows, n_failed, n_before))
            progress.update(task, completed=n_done, total=n_rows, said=text)

        yield advance


@contextmanager
def show_phases(*, shown: bool = True) -> Iterator[Callable[[str, int, int, int], None]]:
    """Show the progress of one phase after the other, each under its name."""
    begun: dict[str, tuple[Advance, int]] = {}  # with what was done when it began, such as before a restart
    with ExitStack() as held:

        def advance(phase: str, n_done: int, n_rows: int, n_failed: int) -> None:
            if phase not in begun:
                held.close()
                begun[phase] = held.enter_context(show_progress(phase, n_rows, shown=shown)), n_done
            show, n_before = begun[phase]
            show(n_done, n_rows, n_failed, n_before)

        yield advance


def _plain_lines(what: str, rate_of: "_Rate") -> Advance:
    last: float | None = None

    def advance(n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None:
        nonlocal last
        said = rate_of(n_done, n_rows, n_failed, n_before)
        if last is None or n_done >= n_rows or time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(", ".join([f"{what}: {n_done}/{n_rows} rows", *said]), file=sys.stderr, flush=True)

    return advance


class _Rate:
    """Says how fast it goes, by the rows of this start; the clock starts with the first call that has none of them."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def __call__(self, n_done: int, n_rows: int, n_failed: int, n_before: int) -> list[str]:
        if (n_here := n_done - n_before) <= 0:
            self._since = time.monotonic()
            return []
        rate = n_here / max(time.monotonic() - self._since, 1e-9)
        left = [f"{timedelta(seconds=round((n_rows - n_done) / rate))} left"] if n_done < n_rows else []
        return [f"{rate:.1f} rows/s", *([f"{n_failed} failed"] if n_failed else []), *left]

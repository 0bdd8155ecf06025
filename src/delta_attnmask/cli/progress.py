"""Progress on the terminal: a bar with rate and time left, or plain lines where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[[int, int, int], None]  # rows done, rows in all, rows failed


@contextmanager
def show_progress(what: str) -> Iterator[Advance]:
    """Give a function that shows how far `what` has come."""
    if not sys.stderr.isatty():
        yield _plain_lines(what)
        return
    from rich.console import Console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None, rate="")
        rate = _Rate()

        def advance(n_done: int, n_rows: int, n_failed: int) -> None:
            text = f"{rate(n_done)}{f', {n_failed} failed' if n_failed else ''}"
            progress.update(task, completed=n_done, total=n_rows, rate=text)

        yield advance


def _plain_lines(what: str) -> Advance:
    rate = _Rate()
    last = 0.0

    def advance(n_done: int, n_rows: int, n_failed: int) -> None:
        nonlocal last
        if n_done < n_rows and time.monotonic() - last < _SECONDS_BETWEEN_LINES:
            rate(n_done)
            return
        last = time.monotonic()
        left = f", {rate.seconds_left(n_done, n_rows):.0f} s left" if n_done < n_rows else ""
        print(f"{what}: {n_done}/{n_rows} rows, {rate(n_done)}, {n_failed} failed{left}", file=sys.stderr, flush=True)

    return advance


class _Rate:
    """Rows per second since the first report."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None
        self._born = time.monotonic()
        self._value = 0.0

    def __call__(self, n_done: int) -> str:
        if self._start is None:
            self._start = (self._born, 0)
        seconds = time.monotonic() - self._start[0]
        self._value = (n_done - self._start[1]) / max(seconds, 1e-9)
        return f"{self._value:.1f} rows/s"

    def seconds_left(self, n_done: int, n_rows: int) -> float:
        self(n_done)
        return (n_rows - n_done) / max(self._value, 1e-9)

"""Progress on the terminal: a bar with rate and time left, or plain lines where there is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0

Advance = Callable[[int, int, int], None]  # rows done, rows in all, rows failed


@contextmanager
def show_progress(what: str, since: float | None = None) -> Iterator[Advance]:
    """Give a function that shows how far `what` has come.

    since: the monotonic time at which it began; now if not given.
    """
    rate = _Rate(time.monotonic() if since is None else since)
    if not sys.stderr.isatty():
        yield _plain_lines(what, rate)
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

        def advance(n_done: int, n_rows: int, n_failed: int) -> None:
            text = f"{rate(n_done)}{f', {n_failed} failed' if n_failed else ''}"
            progress.update(task, completed=n_done, total=n_rows, rate=text)

        yield advance


def _plain_lines(what: str, rate: "_Rate") -> Advance:
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
    """Rows per second since a monotonic time."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._value = 0.0

    def __call__(self, n_done: int) -> str:
        self._value = n_done / max(time.monotonic() - self._since, 1e-9)
        return f"{self._value:.1f} rows/s"

    def seconds_left(self, n_done: int, n_rows: int) -> float:
        self(n_done)
        return (n_rows - n_done) / max(self._value, 1e-9)

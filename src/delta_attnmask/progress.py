"""Progress: a bar with rate and time left in a terminal or a notebook, plain lines elsewhere. No torch here."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from delta_attnmask.scoring.jobs import Progress as RunProgress

_SECONDS_BETWEEN_LINES = 10.0


class Advance(Protocol):
    """Shows how far something has come. n_before: rows that were done before this start; its rate leaves them out."""

    def __call__(self, n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None: ...


class RunBar:
    """Shows a run's progress: where it begins, after each batch in this process, and after each unit.

    n_before: rows that earlier starts had done.
    """

    def __init__(self, advance: Advance) -> None:
        self.n_before = 0
        self._advance = advance
        self._n_rows_of_unit = 0
        self._last: RunProgress | None = None

    def show(self, progress: "RunProgress") -> None:
        self._last, self._n_rows_of_unit = progress, 0
        self.n_before = progress.n_done - progress.n_done_here
        self._advance(progress.n_done, progress.n_rows, progress.n_failed_here, self.n_before)

    @property
    def listeners(self) -> dict[str, Any]:
        """What scoring in this process reports to."""
        return {"on_start": self.show, "on_progress": self.show, "on_rows": self.show_rows}

    def show_rows(self, n_rows: int) -> None:
        """Count rows of a unit that isn't in place yet."""
        if (last := self._last) is not None:
            self._n_rows_of_unit += n_rows
            n_done = min(last.n_done + self._n_rows_of_unit, last.n_rows)
            self._advance(n_done, last.n_rows, last.n_failed_here, self.n_before)


def print_note(line: str) -> None:
    """Print what the user should know beside the result."""
    print(line, file=sys.stderr)


def is_watched(wanted: bool | None = None) -> bool:
    """Whether to show progress; if nobody says, in a terminal and in a notebook."""
    return (sys.stderr.isatty() or _is_notebook()) if wanted is None else wanted


@contextmanager
def show_progress(
    what: str, n_rows: int | None = None, since: float | None = None, *, shown: bool = True
) -> Iterator[Advance]:
    """Give a function that shows how far `what` has come.

    n_rows: how many there are, if that is known already. since: the monotonic time at which it began; now if not given.
    shown: False shows nothing.
    """
    pace = _Pace(time.monotonic() if since is None else since)
    if not shown:
        yield _show_nothing
        return
    if not sys.stderr.isatty() and not _is_notebook():
        yield _plain_lines(what, pace)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=Console(stderr=not _is_notebook())) as progress:
        task = progress.add_task(what, total=n_rows, rate="", left="")

        def advance(n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None:
            rate, seconds = pace(n_done, n_rows, n_before)
            text = ", ".join([*([f"{rate:.1f} rows/s"] if rate else []), *([f"{n_failed} failed"] if n_failed else [])])
            left = f"{timedelta(seconds=round(seconds))} left" if rate and n_done < n_rows else ""
            progress.update(task, completed=n_done, total=n_rows, rate=text, left=left)

        yield advance


@contextmanager
def show_phases() -> Iterator[Callable[[str, int, int, int], None]]:
    """Show the progress of one phase after the other, each under its name."""
    with ExitStack() as shown:
        begun: dict[str, tuple[Advance, int]] = {}  # with what was done when it began, such as before a restart
        last = time.monotonic()

        def advance(phase: str, n_done: int, n_rows: int, n_failed: int) -> None:
            nonlocal last
            if phase not in begun:
                shown.close()
                begun[phase] = shown.enter_context(show_progress(phase, n_rows, since=last)), n_done
            show, n_before = begun[phase]
            show(n_done, n_rows, n_failed, n_before)
            last = time.monotonic()

        yield advance


def _show_nothing(n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None:
    pass


def _is_notebook() -> bool:
    """Whether this runs in a Jupyter kernel, which shows rich output though it is no terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and shell.has_trait("kernel")


def _plain_lines(what: str, pace: "_Pace") -> Advance:
    last: float | None = None

    def advance(n_done: int, n_rows: int, n_failed: int = 0, n_before: int = 0) -> None:
        nonlocal last
        rate, seconds = pace(n_done, n_rows, n_before)
        if last is not None and n_done < n_rows and time.monotonic() - last < _SECONDS_BETWEEN_LINES:
            return
        last = time.monotonic()
        said = [f"{what}: {n_done}/{n_rows} rows", *([f"{rate:.1f} rows/s"] if rate else []), f"{n_failed} failed"]
        said += [f"{seconds:.0f} s left"] if rate and n_done < n_rows else []
        print(", ".join(said), file=sys.stderr, flush=True)

    return advance


class _Pace:
    """Rows per second and seconds left, by the rows of this start; both are 0 before the first of them."""

    def __init__(self, since: float) -> None:
        self._since = since

    def __call__(self, n_done: int, n_rows: int, n_before: int) -> tuple[float, float]:
        n_here = n_done - n_before
        if n_here <= 0:
            self._since = time.monotonic()
            return 0.0, 0.0
        rate = n_here / max(time.monotonic() - self._since, 1e-9)
        return rate, (n_rows - n_done) / rate

"""Workers that fail in planned ways; importable, so that they can be made in other processes."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from delta_attnmask.errors import DeviceError, SettingsError
from delta_attnmask.executing.actors import Cluster, ray_pool
from delta_attnmask.executing.engines import Faults
from delta_attnmask.manifest import Manifest
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import SampleScore, UnitReport

FAULTS = Faults(ends_run=(SettingsError,), ends_worker=(DeviceError,))


@dataclass(frozen=True)
class Done:
    unit: int
    pid: int


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(error: Exception) -> None:
    raise error


@dataclass
class Plan:
    """Makes workers that do something else at some units: always, or `times` times over all workers.

    folder: where they count, since a worker that is killed forgets. flaky: units that fail twice.
    """

    folder: Path
    action: Callable[[], None] | None = None
    at: tuple[int, ...] = ()
    times: int = 1000
    flaky: tuple[int, ...] = ()

    def __call__(self) -> "PlannedWorker":
        return PlannedWorker(self)

    def strike(self, unit: int) -> None:
        marks = self.folder / f"unit-{unit}"
        n_tries = len(self.pids(unit))
        with marks.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if self.action is not None and unit in self.at and n_tries < self.times:
            self.action()
        if unit in self.flaky and n_tries < 2:
            raise OSError("busy")

    def pids(self, unit: int) -> list[int]:
        """The processes that tried a unit, in order."""
        marks = self.folder / f"unit-{unit}"
        return [int(line) for line in marks.read_text().splitlines()] if marks.exists() else []

    def tries(self, unit: int) -> int:
        return len(self.pids(unit))


@dataclass
class PlannedWorker:
    plan: Plan
    is_computing: threading.Lock = field(default_factory=threading.Lock)

    def run(self, units: Iterable[int]) -> Iterator[Done]:
        for unit in units:
            assert self.is_computing.acquire(blocking=False)  # never two at a time
            try:
                self.plan.strike(unit)
            finally:
                self.is_computing.release()
            yield Done(unit, os.getpid())


def refuse_to_start() -> PlannedWorker:
    raise OSError("no model here")


@dataclass(frozen=True)
class Writing:
    """Makes workers that write made-up scores into a run folder, and take their time."""

    path: Path
    manifest: Manifest
    seconds: float = 0.05

    def __call__(self) -> "WritingWorker":
        return WritingWorker(self)


@dataclass
class WritingWorker:
    plan: Writing

    @property
    def manifest(self) -> Manifest:
        return self.plan.manifest

    def run(self, units: Iterable[int]) -> Iterator[UnitReport]:
        for unit in units:
            time.sleep(self.plan.seconds)
            rows = self.manifest.rows_of(unit)
            scores = [SampleScore(row=row, id="", key=str(row), source="", status="ok", delta=row / 2) for row in rows]
            RunFolder.join(self.plan.path, self.manifest).write_unit(unit, scores)
            yield UnitReport(unit, len(scores), 0)


def drive(plan: Writing, address: str, environment: Mapping[str, str]) -> None:
    """What a driver of its own does: let a worker of a cluster write the run.

    environment: of the test, which a fork server that was started before the cluster doesn't know.
    """
    os.environ.update(environment)
    from delta_attnmask.scoring.jobs import score_units

    with ray_pool(plan, Cluster(1, 0, address)) as pool:
        score_units(pool, plan.path)

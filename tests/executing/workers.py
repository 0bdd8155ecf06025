"""Workers that fail in planned ways; importable, so that they can be made in other processes."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from delta_attnmask.artifacts import Manifest, RunFolder
from delta_attnmask.errors import DeviceError, SettingsError
from delta_attnmask.executing.contract import Faults
from delta_attnmask.executing.ray import Cluster, ray_pool
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
    in_prepare: bool = False
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

    def prepare(self, unit: int) -> int:
        if self.plan.in_prepare:
            self.plan.strike(unit)
        return unit

    def compute(self, unit: int) -> Done:
        assert self.is_computing.acquire(blocking=False)  # never two at a time
        try:
            if not self.plan.in_prepare:
                self.plan.strike(unit)
            return Done(unit, os.getpid())
        finally:
            self.is_computing.release()


class WaitingWorker:
    """Computes a unit only when another one has been prepared."""

    def __init__(self) -> None:
        self._n_prepared = 0
        self._changed = threading.Condition()

    def prepare(self, unit: int) -> int:
        with self._changed:
            self._n_prepared += 1
            self._changed.notify_all()
        return unit

    def compute(self, unit: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._n_prepared >= 2, timeout=20)


@dataclass
class OneThingAtATime:
    """Says of each unit whether nothing else was done beside it."""

    is_busy: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, unit: int) -> bool:
        return self._work()

    def compute(self, was_alone: bool) -> bool:
        return self._work() and was_alone

    def _work(self) -> bool:
        if not self.is_busy.acquire(blocking=False):
            return False
        time.sleep(0.02)
        self.is_busy.release()
        return True


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

    def prepare(self, unit: int) -> list[SampleScore]:
        rows = self.manifest.rows_of(unit)
        return [SampleScore(row=row, id="", key=str(row), source="", status="ok", delta=row / 2) for row in rows]

    def compute(self, scores: list[SampleScore]) -> UnitReport:
        time.sleep(self.plan.seconds)
        unit = scores[0].row // self.manifest.unit_rows
        RunFolder.join(self.plan.path, self.manifest).write_unit(unit, scores)
        return UnitReport(unit, len(scores), 0)


def drive(plan: Writing, address: str) -> None:
    """What a driver of its own does: let two workers of a cluster write the run."""
    from delta_attnmask.scoring.run import score_units

    with ray_pool(plan, Cluster(2, 0, address)) as pool:
        score_units(pool, plan.path)

"""Run units of work on the actors of a Ray cluster (Ray Core; the extra `ray`).

Each actor makes one worker. Beside a GPU it does two units at a time: it prepares one while it computes the other;
where the same cores do both, they take turns (docs/performance.md), and the second unit waits in the actor.

Ray restarts nothing here: with its own retries a unit that kills its worker would be tried for ever, and the driver
wouldn't know.
"""

import logging
import os
import secrets
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from delta_attnmask.errors import DeltaAttnMaskError, SettingsError
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

_AT_A_TIME = 2  # units of one actor: one computed, one prepared or waiting
_FAILED_STARTS = 3  # in a row, then an actor is given up
_OBJECT_STORE_BYTES = 256 << 20  # only what makes the workers goes through it

WorkerT = TypeVar("WorkerT", bound=Worker[Any, Any])


@dataclass(frozen=True)
class Cluster:
    """Which workers are wanted, and where.

    n_workers: None for as many as there are GPUs for, or one without GPUs. gpus_per_worker: None for one if there are
    any; a fraction lets several share one. address: of a running cluster; None starts one on this machine alone.
    """

    n_workers: int | None = None
    gpus_per_worker: float | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.n_workers is not None and self.n_workers < 1:
            raise SettingsError(f"workers={self.n_workers}: expected at least 1")
        if self.gpus_per_worker is not None and self.gpus_per_worker < 0:
            raise SettingsError(f"gpus_per_worker={self.gpus_per_worker}: expected 0 or more")


@contextmanager
def ray_pool(
    make_worker: Callable[[], WorkerT],
    cluster: Cluster,
    faults: Faults = NO_FAULTS,
    tries: int = TRIES,
    *,
    overlaps: bool | None = None,
) -> Iterator["RayPool[WorkerT, Any]"]:
    """A pool of actors, each with a worker of its own; `make_worker` is pickled and called where the actor is.

    overlaps: whether a unit is prepared while another is computed; None for workers that have a GPU.
    Raises SettingsError where Ray is missing or the cluster is too small.
    """
    ray = import_ray(has_own_cluster=cluster.address is None)
    is_ours = not ray.is_initialized()
    if is_ours:
        connect(ray, cluster)
    pool: RayPool[WorkerT, Any] | None = None
    try:
        n_workers, n_gpus = _fit(ray.cluster_resources(), cluster)
        at_once = _AT_A_TIME if (n_gpus > 0 if overlaps is None else overlaps) else 1
        options = {"num_cpus": 1, "num_gpus": n_gpus, "max_concurrency": at_once, "max_restarts": 0}
        pool = RayPool(ray, make_worker, n_workers, options, faults, tries)
        yield pool
    finally:
        if pool is not None:
            pool.close()
        if is_ours:
            ray.shutdown()


def import_ray(*, has_own_cluster: bool) -> Any:
    """Ray, told to report nothing to anybody, and to let nobody else into a cluster of our own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if has_own_cluster and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    try:
        import ray
    except ImportError as error:
        raise SettingsError("the engine ray needs Ray: pip install 'delta-attnmask[ray]'") from error
    return ray


def connect(ray: Any, cluster: Cluster) -> None:
    """Connect to a running cluster, or start one on this machine."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if cluster.address is not None:
            ray.init(address=cluster.address, **quiet)
            return
        n_cpus = max(os.cpu_count() or 1, cluster.n_workers or 1)
        ray.init(
            address="local",
            num_cpus=n_cpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            **quiet,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingsError(f"Ray can't be started or reached at {cluster.address}: {error}") from error


def _fit(resources: dict[str, float], cluster: Cluster) -> tuple[int, float]:
    """How many workers, and the GPUs of each."""
    n_present = resources.get("GPU", 0.0)
    n_gpus = cluster.gpus_per_worker if cluster.gpus_per_worker is not None else min(1.0, n_present)
    n_workers = cluster.n_workers or max(1, int(n_present / n_gpus) if n_gpus else 1)
    for what, wanted, present in (("GPU", n_workers * n_gpus, n_present), ("CPU", n_workers, resources.get("CPU", 0))):
        if wanted > present:
            raise SettingsError(
                f"{n_workers} workers need {wanted:g} {what}s, the cluster has {present:g}; "
                "choose fewer --workers or --gpus-per-worker"
            )
    return n_workers, n_gpus


@dataclass(frozen=True)
class _Reply:
    """What an actor answers: a value, or what went wrong. `error` is set where it ends the run."""

    value: Any = None
    reason: str = ""
    trace: str = ""
    error: Exception | None = None
    ends_worker: bool = False


class _Actor(Generic[WorkerT]):
    """Holds a worker inside an actor's process; two threads call it."""

    def __init__(self, make_worker: Callable[[], WorkerT], faults: Faults) -> None:
        self._make_worker, self._faults = make_worker, faults
        self._worker: WorkerT | None = None
        self._computing = threading.Lock()

    def start(self) -> _Reply:
        """Make the worker; it isn't made with the actor, whose own errors reach the driver only as text."""

        def make() -> None:
            self._worker = self._make_worker()

        return self._try(make)

    def ask(self, question: Callable[[WorkerT], Any]) -> _Reply:
        return self._try(lambda: question(self._ready()))

    def do(self, unit: int) -> _Reply:
        def work() -> Any:
            prepared = self._ready().prepare(unit)
            with self._computing:
                return self._ready().compute(prepared)

        return self._try(work)

    def _ready(self) -> WorkerT:
        if self._worker is None:
            raise RuntimeError("the worker hasn't been made")
        return self._worker

    def _try(self, work: Callable[[], Any]) -> _Reply:
        try:
            return _Reply(work())
        except self._faults.ends_run as error:
            return _Reply(error=error, reason=describe(error))
        except Exception as error:  # noqa: BLE001 - whatever a unit meets; the driver decides
            ends_worker = isinstance(error, self._faults.ends_worker)
            return _Reply(reason=describe(error), trace=trace_of(error), ends_worker=ends_worker)


@dataclass(eq=False)
class _Seat:
    """A place for an actor, and which units it has. An actor that dies is followed by another."""

    actor: Any
    is_ready: bool = False
    n_failed_starts: int = 0
    units: list[int] = field(default_factory=list)
    is_alone: bool = False  # it has a unit that failed before, and gets no other beside it


class RayPool(Generic[WorkerT, DoneT]):
    """Actors that do units. Use `ray_pool`.

    A unit whose worker died is tried again, then alone on its worker, so that no other is blamed for what it does.
    """

    def __init__(
        self,
        ray: Any,
        make_worker: Callable[[], WorkerT],
        n_workers: int,
        options: dict[str, Any],
        faults: Faults,
        tries: int,
    ) -> None:
        self._ray, self._tries = ray, tries
        self._recipe = ray.put(make_worker)
        self._faults = faults
        self._actor_class = ray.remote(_Actor).options(**options)
        self._waiting: dict[Any, tuple[_Seat, int | None]] = {}  # what an answer will be about; None for a start
        self._seats = [self._start(_Seat(None)) for _ in range(n_workers)]

    def close(self) -> None:
        for seat in self._seats:
            self._ray.kill(seat.actor)

    def ask(self, question: Callable[[WorkerT], Answer]) -> Answer:
        """What the first worker that is ready answers."""
        while True:
            while not (ready := [seat for seat in self._seats if seat.is_ready]):
                self._receive()
            try:
                reply = self._ray.get(ready[0].actor.ask.remote(question))
            except self._ray.exceptions.RayActorError as error:
                self._replace(ready[0], describe(error))
                continue
            if reply.reason:
                raise reply.error or DeltaAttnMaskError(f"a worker can't answer: {reply.reason}\n{reply.trace}")
            answer: Answer = reply.value
            return answer

    def run(self, units: Sequence[int]) -> Iterator[DoneT | Failure]:
        """Do all units; see `Pool`."""
        to_do, suspects = deque(units), deque[int]()
        n_tries: Counter[int] = Counter()
        while to_do or suspects or any(seat.units for seat in self._seats):
            self._hand_out(to_do, suspects)
            for unit, reply in self._receive():
                if not reply.reason:
                    yield reply.value
                    continue
                n_tries[unit] += 1
                if n_tries[unit] < self._tries:
                    suspects.append(unit)
                else:
                    yield Failure(unit, n_tries[unit], reply.reason, reply.trace)

    def _hand_out(self, to_do: deque[int], suspects: deque[int]) -> None:
        for seat in self._seats:
            while seat.is_ready and to_do and not seat.is_alone and len(seat.units) < _AT_A_TIME:
                self._submit(seat, to_do.popleft())
            if seat.is_ready and suspects and not seat.units:
                seat.is_alone = True
                self._submit(seat, suspects.popleft())

    def _submit(self, seat: _Seat, unit: int) -> None:
        seat.units.append(unit)
        self._waiting[seat.actor.do.remote(unit)] = (seat, unit)

    def _receive(self) -> list[tuple[int, _Reply]]:
        """Wait for the next answer, and give what it says about units; starts are taken note of."""
        (reference, *_), _ = self._ray.wait(list(self._waiting), num_returns=1)
        seat, unit = self._waiting.pop(reference)
        try:
            reply: _Reply = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # the answer couldn't be sent
            reply = _Reply(reason=describe(error), trace=str(error))
        except self._ray.exceptions.RayError as error:
            return self._replace(seat, f"the worker died: {describe(error)}")
        if reply.error is not None:
            raise reply.error
        if unit is None:
            if reply.reason:
                return self._replace(seat, reply.reason)
            seat.is_ready, seat.n_failed_starts = True, 0
            return []
        seat.units.remove(unit)
        seat.is_alone = False
        others = self._replace(seat, reply.reason) if reply.ends_worker else []
        return [(unit, reply), *others]

    def _replace(self, seat: _Seat, reason: str) -> list[tuple[int, _Reply]]:
        """Start another actor in a seat; the units that the old one had come back as failed."""
        if not seat.is_ready:
            seat.n_failed_starts += 1
        lost = [(unit, _Reply(reason=reason)) for unit in seat.units]
        self._waiting = {ref: (owner, unit) for ref, (owner, unit) in self._waiting.items() if owner is not seat}
        self._ray.kill(seat.actor)
        seat.units, seat.is_alone, seat.is_ready = [], False, False
        if seat.n_failed_starts < _FAILED_STARTS:
            self._start(seat)
            return lost
        self._seats.remove(seat)
        if not self._seats:
            raise DeltaAttnMaskError(f"no worker could be started; the last one: {reason}")
        return lost

    def _start(self, seat: _Seat) -> _Seat:
        seat.actor = self._actor_class.remote(self._recipe, self._faults)
        self._waiting[seat.actor.start.remote()] = (seat, None)
        return seat

"""Run units of work on the actors of a Ray cluster (Ray Core; the extra `ray`).

Each actor makes one worker, which does a few units at a time, so that it can read ahead from one to the next.

Ray restarts nothing here: with its own retries a unit that kills its worker would be tried for ever, and the driver
wouldn't know.
"""

import logging
import os
import secrets
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from delta_attnmask.errors import DeltaAttnMaskError, SettingsError
from delta_attnmask.executing.engines import (
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

_GROUPS_AT_A_TIME = 2  # of one actor: one is done, one waits there
_MOST_UNITS = 4  # of a group
_GROUPS_A_WORKER = 8  # at least, where there are as many units, so that no worker waits long for the last one
_FAILED_STARTS = 3  # in a row, then an actor is given up
_OBJECT_STORE_BYTES = 256 << 20  # only what makes the workers goes through it

WorkerT = TypeVar("WorkerT", bound=Worker[Any])
Units = tuple[int, ...]


@dataclass(frozen=True)
class Cluster:
    """Which actors are wanted, and where.

    n_actors: None for as many as there are GPUs for, or one without GPUs. gpus_per_actor: None for one if there are
    any; a fraction lets several share one. address: of a running cluster; None starts one on this machine alone.
    """

    n_actors: int | None = None
    gpus_per_actor: float | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.n_actors is not None and self.n_actors < 1:
            raise SettingsError(f"actors={self.n_actors}: expected at least 1")
        if self.gpus_per_actor is not None and self.gpus_per_actor < 0:
            raise SettingsError(f"gpus_per_actor={self.gpus_per_actor}: expected 0 or more")


@contextmanager
def ray_pool(
    make_worker: Callable[[], WorkerT],
    cluster: Cluster,
    faults: Faults = NO_FAULTS,
    tries: int = TRIES,
) -> Iterator["RayPool[WorkerT, Any]"]:
    """A pool of actors, each with a worker of its own; `make_worker` is pickled and called where the actor is.

    Raises SettingsError where Ray is missing or the cluster is too small.
    """
    ray = import_ray(has_own_cluster=cluster.address is None)
    is_ours = not ray.is_initialized()
    if is_ours:
        connect(ray, cluster)
    pool: RayPool[WorkerT, Any] | None = None
    try:
        n_workers, n_gpus = _fit(ray.cluster_resources(), cluster)
        options = {"num_cpus": 1, "num_gpus": n_gpus, "max_restarts": 0}
        pool = RayPool(ray, make_worker, n_workers, options, faults, tries)
        yield pool
    finally:
        if pool is not None:
            pool.close()
        if is_ours:
            ray.shutdown()


def import_ray(*, has_own_cluster: bool) -> Any:
    """Ray, set to report nothing to anybody and to accept no other clients in a cluster of our own."""
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
        n_cpus = max(os.cpu_count() or 1, cluster.n_actors or 1)
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
    n_gpus = cluster.gpus_per_actor if cluster.gpus_per_actor is not None else min(1.0, n_present)
    n_workers = cluster.n_actors or max(1, int(n_present / n_gpus) if n_gpus else 1)
    for what, wanted, present in (("GPU", n_workers * n_gpus, n_present), ("CPU", n_workers, resources.get("CPU", 0))):
        if wanted > present:
            raise SettingsError(
                f"{n_workers} actors need {wanted:g} {what}s, the cluster has {present:g}; "
                "choose fewer --actors or --gpus-per-actor"
            )
    return n_workers, n_gpus


@dataclass(frozen=True)
class _Reply:
    """What an actor answers: values, one for each unit that was done, or what went wrong after these.

    error: set where it ends the run.
    """

    values: tuple[Any, ...] = ()
    reason: str = ""
    trace: str = ""
    error: Exception | None = None
    ends_worker: bool = False


class _Actor(Generic[WorkerT]):
    """Holds a worker inside an actor's process."""

    def __init__(self, make_worker: Callable[[], WorkerT], faults: Faults) -> None:
        self._make_worker, self._faults = make_worker, faults
        self._worker: WorkerT | None = None

    def start(self) -> _Reply:
        """Make the worker; it isn't made with the actor, whose own errors reach the driver only as text."""

        def make() -> Iterator[None]:
            self._worker = self._make_worker()
            yield None

        return self._collect(make())

    def ask(self, question: Callable[[WorkerT], Any]) -> _Reply:
        return self._collect(question(self._ready()) for _ in range(1))

    def do(self, units: Units) -> _Reply:
        return self._collect(done for _ in range(1) for done in self._ready().run(units))

    def _ready(self) -> WorkerT:
        if self._worker is None:
            raise RuntimeError("the worker hasn't been made")
        return self._worker

    def _collect(self, values: Iterator[Any]) -> _Reply:
        found: list[Any] = []
        try:
            found.extend(values)
        except self._faults.ends_run as error:
            return _Reply(tuple(found), describe(error), error=error)
        except Exception as error:  # noqa: BLE001 - whatever a unit meets; the driver decides
            ends_worker = isinstance(error, self._faults.ends_worker)
            return _Reply(tuple(found), describe(error), trace_of(error), ends_worker=ends_worker)
        return _Reply(tuple(found))


@dataclass(eq=False)
class _Seat:
    """A place for an actor, and which groups of units it has. An actor that dies is followed by another."""

    actor: Any
    is_ready: bool = False
    n_failed_starts: int = 0
    groups: list[Units] = field(default_factory=list)
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
        self._waiting: dict[Any, tuple[_Seat, Units]] = {}  # what an answer will be about; no units for a start
        self._n_tries: Counter[int] = Counter()
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
            (answer,) = reply.values
            return answer  # type: ignore[no-any-return]

    def run(self, units: Sequence[int]) -> Iterator[DoneT | Failure]:
        """Do all units; see `Pool`."""
        to_do, suspects = deque(_group(units, len(self._seats))), deque[int]()
        self._n_tries.clear()
        while to_do or suspects or any(seat.groups for seat in self._seats):
            self._hand_out(to_do, suspects)
            for group, reply in self._receive():
                yield from reply.values
                if len(reply.values) < len(group):
                    yield from self._judge(group[len(reply.values) :], reply, to_do, suspects)

    def _judge(self, left: Units, reply: _Reply, to_do: deque[Units], suspects: deque[int]) -> Iterator[Failure]:
        """The first of the units that are left failed, or any of them where the worker died."""
        if not reply.trace and len(left) > 1:  # nobody knows which one the worker died of
            suspects.extend(left)
            return
        unit, *others = left
        if others:
            to_do.appendleft(tuple(others))
        self._n_tries[unit] += 1
        if self._n_tries[unit] < self._tries:
            suspects.append(unit)
        else:
            yield Failure(unit, self._n_tries[unit], reply.reason, reply.trace)

    def _hand_out(self, to_do: deque[Units], suspects: deque[int]) -> None:
        for seat in self._seats:
            while seat.is_ready and to_do and not seat.is_alone and len(seat.groups) < _GROUPS_AT_A_TIME:
                self._submit(seat, to_do.popleft())
            if seat.is_ready and suspects and not seat.groups:
                seat.is_alone = True
                self._submit(seat, (suspects.popleft(),))

    def _submit(self, seat: _Seat, group: Units) -> None:
        seat.groups.append(group)
        self._waiting[seat.actor.do.remote(group)] = (seat, group)

    def _receive(self) -> list[tuple[Units, _Reply]]:
        """Wait for the next answer, and give what it says about units; starts are taken note of."""
        (reference, *_), _ = self._ray.wait(list(self._waiting), num_returns=1)
        seat, group = self._waiting.pop(reference)
        try:
            reply: _Reply = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # the answer couldn't be sent
            reply = _Reply(reason=describe(error), trace=str(error))
        except self._ray.exceptions.RayError as error:
            return self._replace(seat, f"the worker died: {describe(error)}")
        if reply.error is not None:
            raise reply.error
        if not group:
            if reply.reason:
                return self._replace(seat, reply.reason)
            seat.is_ready, seat.n_failed_starts = True, 0
            return []
        seat.groups.remove(group)
        seat.is_alone = False
        others = self._replace(seat, reply.reason) if reply.ends_worker else []
        return [(group, reply), *others]

    def _replace(self, seat: _Seat, reason: str) -> list[tuple[Units, _Reply]]:
        """Start another actor in a seat; the groups that the old one had come back as failed."""
        if not seat.is_ready:
            seat.n_failed_starts += 1
        lost = [(group, _Reply(reason=reason)) for group in seat.groups]
        self._waiting = {ref: (owner, group) for ref, (owner, group) in self._waiting.items() if owner is not seat}
        self._ray.kill(seat.actor)
        seat.groups, seat.is_alone, seat.is_ready = [], False, False
        if seat.n_failed_starts < _FAILED_STARTS:
            self._start(seat)
            return lost
        self._seats.remove(seat)
        if not self._seats:
            raise DeltaAttnMaskError(f"no worker could be started; the last one: {reason}")
        return lost

    def _start(self, seat: _Seat) -> _Seat:
        seat.actor = self._actor_class.remote(self._recipe, self._faults)
        self._waiting[seat.actor.start.remote()] = (seat, ())
        return seat


def _group(units: Sequence[int], n_workers: int) -> list[Units]:
    """Units that follow each other, few enough together that every worker gets several groups."""
    size = max(1, min(_MOST_UNITS, len(units) // (_GROUPS_A_WORKER * n_workers)))
    return [tuple(units[start : start + size]) for start in range(0, len(units), size)]

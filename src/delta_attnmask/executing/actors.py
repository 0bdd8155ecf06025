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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
    ray, is_ours = connect(cluster)
    with ExitStack() as closing:
        if is_ours:
            closing.callback(ray.shutdown)
        n_workers, n_gpus = _fit(ray.cluster_resources(), cluster)
        options = {"num_cpus": 1, "num_gpus": n_gpus, "max_restarts": 0}
        pool: RayPool[WorkerT, Any] = RayPool(ray, make_worker, n_workers, options, faults, tries)
        closing.callback(pool.close)
        yield pool


def connect(cluster: Cluster) -> tuple[Any, bool]:
    """Ray, connected to a cluster that runs or to one of our own on this machine; False where it was so already.

    Ray is set to report nothing to anybody, and a cluster of our own to accept no other clients.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if cluster.address is None and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    try:
        import ray
    except ImportError as error:
        raise SettingsError("the engine ray needs Ray: pip install 'delta-attnmask[ray]'") from error
    if ray.is_initialized():
        return ray, False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address is None:
        n_cpus = max(os.cpu_count() or 1, cluster.n_actors or 1)
        options |= {"num_cpus": n_cpus, "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        ray.init(address=cluster.address or "local", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise SettingsError(f"Ray can't be started or reached at {cluster.address}: {error}") from error
    return ray, True


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

    trace: empty where the actor died. error: set where it ends the run.
    """

    values: tuple[Any, ...] = ()
    reason: str = ""
    trace: str = ""
    error: Exception | None = None
    ends_worker: bool = False


class _Actor(Generic[WorkerT]):
    """Holds a worker inside an actor's process. What goes wrong is answered, since Ray sends errors only as text."""

    def __init__(self, make_worker: Callable[[], WorkerT], faults: Faults) -> None:
        self._make_worker, self._faults = make_worker, faults

    def start(self) -> _Reply:
        return self._collect(self._start)

    def ask(self, question: Callable[[WorkerT], Any]) -> _Reply:
        return self._collect(lambda: iter([question(self._worker)]))

    def do(self, units: Units) -> _Reply:
        return self._collect(lambda: self._worker.run(units))

    def _start(self) -> Iterator[None]:
        self._worker = self._make_worker()
        yield None

    def _collect(self, call: Callable[[], Iterator[Any]]) -> _Reply:
        found: list[Any] = []
        try:
            found.extend(call())
        except self._faults.ends_run as error:
            return _Reply(tuple(found), describe(error), trace_of(error), error)
        except Exception as error:  # noqa: BLE001 - whatever a unit meets; the driver decides
            ends_worker = isinstance(error, self._faults.ends_worker)
            return _Reply(tuple(found), describe(error), trace_of(error), ends_worker=ends_worker)
        return _Reply(tuple(found))


class RayPool(Generic[WorkerT, DoneT]):
    """Actors that do units, a group of them at a time; one that dies is replaced. Use `ray_pool`.

    Units whose actor died are tried again, each in a group of its own, so that none is blamed for what another does.
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
        self._ray, self._n_workers, self._tries = ray, n_workers, tries
        self._recipe, self._faults = ray.put(make_worker), faults
        self._actor_class = ray.remote(_Actor).options(**options)
        self._idle: list[Any] = []
        self._waiting: dict[Any, tuple[Any, Units]] = {}  # by what will be answered: the actor, and what it does
        self._starting: dict[Any, int] = {}  # actors that start, and how many in their place failed to before
        for _ in range(n_workers):
            self._start(0)

    def close(self) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self._waiting.values())]:
            self._ray.kill(actor)

    def ask(self, question: Callable[[WorkerT], Answer]) -> Answer:
        """What the first worker that is ready answers."""
        while True:
            while not self._idle:
                self._receive()
            actor = self._idle.pop()
            try:
                reply = self._ray.get(actor.ask.remote(question))
            except self._ray.exceptions.RayActorError:
                self._replace(actor)
                continue
            self._idle.append(actor)
            if reply.reason:
                raise reply.error or DeltaAttnMaskError(f"a worker can't answer: {reply.reason}\n{reply.trace}")
            (answer,) = reply.values
            return answer  # type: ignore[no-any-return]

    def run(self, units: Sequence[int]) -> Iterator[DoneT | Failure]:
        """Do all units; see `Pool`."""
        to_do = deque(_group(units, self._n_workers))
        n_tries: Counter[int] = Counter()
        n_open = len(to_do)
        while n_open:
            while to_do and self._idle:
                actor, group = self._idle.pop(), to_do.popleft()
                self._waiting[actor.do.remote(group)] = actor, group
            group, reply = self._receive()
            yield from reply.values
            left = group[len(reply.values) :]
            n_open -= bool(group)
            if left and (reply.trace or len(left) == 1):  # else nobody knows which one the worker died of
                unit, *others = left
                n_tries[unit] += 1
                if n_tries[unit] == self._tries:
                    yield Failure(unit, self._tries, reply.reason, reply.trace)
                    left = tuple(others)
            to_do.extend((unit,) for unit in left)
            n_open += len(left)

    def _receive(self) -> tuple[Units, _Reply]:
        """Wait for the next answer: which units it is about, none for a start, and what it says of them."""
        (reference, *_), _ = self._ray.wait(list(self._waiting), num_returns=1)
        actor, group = self._waiting.pop(reference)
        try:
            reply: _Reply = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # the answer couldn't be sent
            reply = _Reply(reason=describe(error), trace=str(error))
        except self._ray.exceptions.RayError as error:
            reply = _Reply(reason=f"the worker died: {describe(error)}", ends_worker=True)
        if reply.error is not None:
            self._idle.append(actor)
            raise reply.error
        n_failed = self._starting.pop(actor, None)
        if reply.ends_worker or (n_failed is not None and reply.reason):
            self._replace(actor, 0 if n_failed is None else n_failed + 1, reply.reason)
        else:
            self._idle.append(actor)
        return group, reply if group else _Reply()

    def _replace(self, actor: Any, n_failed: int = 0, reason: str = "") -> None:
        """Start another actor, unless too many in this place failed to start."""
        self._ray.kill(actor)
        if n_failed < _FAILED_STARTS:
            self._start(n_failed)
        elif not self._idle and not self._waiting:
            raise DeltaAttnMaskError(f"no worker could be started; the last one: {reason}")

    def _start(self, n_failed: int) -> None:
        actor = self._actor_class.remote(self._recipe, self._faults)
        self._starting[actor] = n_failed
        self._waiting[actor.start.remote()] = actor, ()


def _group(units: Sequence[int], n_workers: int) -> list[Units]:
    """Units that follow each other, few enough together that every worker gets several groups."""
    size = max(1, min(_MOST_UNITS, len(units) // (_GROUPS_A_WORKER * n_workers)))
    return [tuple(units[start : start + size]) for start in range(0, len(units), size)]

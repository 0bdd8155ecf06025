"""What every engine promises: the same tests for the local pool and for actors on a Ray cluster."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from delta_attnmask.errors import DeltaAttnMaskError, DeviceError, SettingsError
from delta_attnmask.executing.actors import Cluster, ray_pool
from delta_attnmask.executing.engines import Failure, LocalPool
from tests.executing.workers import (
    FAULTS,
    Plan,
    fail,
    kill,
    refuse_to_start,
)

Open = Callable[[Any], AbstractContextManager[Any]]
ONE = Cluster(n_actors=1, gpus_per_actor=0)
TWO = Cluster(n_actors=2, gpus_per_actor=0)


@contextmanager
def open_local(plan: Plan) -> Iterator[Any]:
    yield LocalPool(plan(), FAULTS)


def open_ray(make_worker: Any) -> AbstractContextManager[Any]:
    return ray_pool(make_worker, TWO, FAULTS)


@pytest.fixture(params=["local", "ray"])
def opened(request: pytest.FixtureRequest) -> Open:
    if request.param == "local":
        return open_local
    request.getfixturevalue("cluster")
    return open_ray


def units_of(outcomes: list[Any]) -> list[int]:
    return sorted(outcome.unit for outcome in outcomes)


def pid_of(worker: Any) -> int:
    return os.getpid()


def plan_of(worker: Any) -> Plan:
    plan: Plan = worker.plan
    return plan


def test_units_are_done_once_and_workers_asked(opened: Open, tmp_path: Path) -> None:
    plan = Plan(tmp_path)
    with opened(plan) as pool:
        outcomes = list(pool.run(range(20)))
        assert list(pool.run([])) == []
        assert [outcome.unit for outcome in pool.run([20])] == [20]
        assert pool.ask(plan_of) == plan
        with pytest.raises(SettingsError, match="planned"):
            pool.ask(lambda worker: fail(SettingsError("planned")))
    assert units_of(outcomes) == [*range(20)]
    assert all(plan.tries(unit) == 1 for unit in range(21))


def test_a_unit_is_tried_three_times_and_then_told_while_the_rest_is_done(opened: Open, tmp_path: Path) -> None:
    plan = Plan(tmp_path, partial(fail, ValueError("planned\nsecond line")), at=(2,))
    plan.flaky = (0, 3)
    with opened(plan) as pool:
        outcomes = list(pool.run(range(6)))
    (failure,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert (failure.unit, failure.n_tries, failure.reason) == (2, 3, "ValueError: planned")
    assert "strike" in failure.trace
    assert units_of(outcomes) == [*range(6)]
    assert [plan.tries(unit) for unit in range(6)] == [3, 1, 3, 3, 1, 1]


def test_an_error_that_every_unit_would_meet_ends_the_run(opened: Open, tmp_path: Path) -> None:
    plan = Plan(tmp_path, partial(fail, SettingsError("planned")), at=(3,))
    with opened(plan) as pool, pytest.raises(SettingsError, match="planned"):
        list(pool.run(range(100)))
    assert plan.tries(3) == 1
    assert len(list(tmp_path.iterdir())) < 50


def test_a_local_worker_that_ends_takes_the_run_with_it(tmp_path: Path) -> None:
    plan = Plan(tmp_path, partial(fail, DeviceError("planned")), at=(1,))
    with open_local(plan) as pool, pytest.raises(DeviceError, match="planned"):
        list(pool.run(range(4)))
    assert plan.tries(1) == 1


# Ray alone


def test_a_worker_whose_device_failed_is_replaced(cluster: str, tmp_path: Path) -> None:
    plan = Plan(tmp_path, partial(fail, DeviceError("planned")), at=(0,), times=1)
    with ray_pool(plan, ONE, FAULTS) as pool:
        before = pool.ask(pid_of)
        outcomes = list(pool.run(range(4)))
    assert units_of(outcomes) == [*range(4)]
    assert plan.pids(0)[0] == before != plan.pids(0)[1]


def test_a_worker_that_dies_is_followed_by_another_and_no_other_unit_is_blamed(cluster: str, tmp_path: Path) -> None:
    """Of so many units several are handed out at a time, and all of a group come back when its worker dies."""
    plan = Plan(tmp_path, kill, at=(9,), flaky=(30,))
    with ray_pool(plan, ONE, FAULTS) as pool:
        outcomes = list(pool.run(range(40)))
    (failure,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert (failure.unit, failure.n_tries) == (9, 3)
    assert failure.reason.startswith("the worker died: ActorDiedError")
    assert len(set(plan.pids(9))) == plan.tries(9) == 4  # first in a group, where nobody knew that it was this one
    assert units_of(outcomes) == [*range(40)]
    assert [plan.tries(unit) for unit in (3, 8, 11, 29, 30)] == [1, 2, 1, 1, 3]


def test_workers_that_cannot_start(cluster: str) -> None:
    with (
        ray_pool(refuse_to_start, ONE, FAULTS) as pool,
        pytest.raises(DeltaAttnMaskError, match="no worker could be started; the last one: OSError: no model here"),
    ):
        list(pool.run(range(4)))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Cluster(n_actors=1000, gpus_per_actor=0), "1000 actors need 1000 CPUs, the cluster has"),
        (Cluster(n_actors=1, gpus_per_actor=2), "1 actors need 2 GPUs, the cluster has 0"),
    ],
)
def test_a_cluster_that_is_too_small(cluster: str, wanted: Cluster, message: str) -> None:
    with pytest.raises(SettingsError, match=message), ray_pool(refuse_to_start, wanted):
        pass


@pytest.mark.parametrize("options", [{"n_actors": 0}, {"gpus_per_actor": -1}])
def test_clusters_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="expected"):
        Cluster(**options)

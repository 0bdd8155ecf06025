"""Planning, resuming and reporting of the evidence run."""

import numpy as np
import pytest
from benchmarks.evidence.jobs import METHODS, Job, append, finished, plan_jobs, read_lines
from benchmarks.evidence.report import Results, interval


def line(method: str, seed: int, **columns: float) -> dict[str, object]:
    budget = {"none": 0.0, "full": 1.0}.get(method, 0.2)
    job = {"group": "methods", "method": method, "budget": budget, "seed": seed, "accounting": "epochs"}
    return job | columns


def results(**accuracies: list[float]) -> Results:
    lines = [
        line(method, seed, em_mean=value, em_maps=value, em_flags=0.5)
        for method, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return Results([{name: str(value) for name, value in one.items()} for one in lines])


def test_every_job_is_planned_once_and_every_method_has_every_seed():
    jobs = plan_jobs(("methods", "augmentation", "transfer"), 5, (0.05, 0.2))
    assert len({job.key for job in jobs}) == len(jobs)
    for method in METHODS:
        of_method = [job for job in jobs if job.group == "methods" and job.method == method and job.budget == 0.2]
        assert sorted(job.seed for job in of_method) == list(range(5))


def test_finished_trainings_are_found_again_and_new_columns_fit(tmp_path):
    path = tmp_path / "results.csv"
    jobs = [Job("methods", "random", 0.2, 0), Job("methods", "oracle", 0.2, 0)]
    append(path, line("random", 0, em_mean=0.5))
    append(path, line("oracle", 0, em_mean=0.6, em_shift=0.1))
    assert finished(path) == {job.key for job in jobs}
    assert [one["em_shift"] for one in read_lines(path)] == ["", "0.1"]


def test_share_of_the_oracles_gain():
    found = results(random=[0.4, 0.4], oracle=[0.6, 0.6], ours=[0.5, 0.5], worse=[0.3, 0.3])
    assert found.share_of_gain("ours") == pytest.approx((0.5, 0.5, 0.5))
    assert found.share_of_gain("worse")[0] == pytest.approx(-0.5)


def test_worst_source_is_where_a_method_loses_most_against_random():
    found = results(random=[0.4], ours=[0.3])
    assert found.worst_source("ours") == ("maps", pytest.approx(-0.1))


def test_interval_is_students():
    assert interval(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.484, abs=1e-3)
    assert np.isnan(interval(np.array([1.0])))

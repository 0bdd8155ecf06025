"""Planning, resuming and reporting of the evidence run."""

import numpy as np
import pytest
import torch
from benchmarks.evidence.jobs import GROUPS, METHODS, Job, append, finished, plan_jobs, read_lines
from benchmarks.evidence.results import Results
from benchmarks.evidence.training import Recipe, _plan
from benchmarks.evidence.workplace import Workplace, check_identity
from benchmarks.suite.cached import Rows

SOURCES = ["maps", "maps", "maps", "maps", "flags", "flags"]


def line(method: str, seed: int, **columns: object) -> dict[str, object]:
    budget = {"none": 0.0, "full": 1.0}.get(method, 0.2)
    job = {"group": "methods", "method": method, "budget": budget, "seed": seed, "accounting": "epochs"}
    return job | columns


def trained(method: str, seed: int, right: str) -> dict[str, object]:
    """right: "1" for each test row that was answered rightly."""
    marks = np.array([int(mark) for mark in right], np.uint8)
    maps, flags = marks[:4].mean(), marks[4:].mean()
    packed = np.packbits(marks).tobytes().hex()
    return line(method, seed, em_mean=(maps + flags) / 2, em_maps=maps, em_flags=flags, right=packed)


def results(**outcomes: list[str]) -> Results:
    lines = [trained(method, seed, right) for method, seeds in outcomes.items() for seed, right in enumerate(seeds)]
    return Results([{name: str(value) for name, value in one.items()} for one in lines], SOURCES)


def test_every_job_is_planned_once_and_every_method_has_every_seed():
    jobs = plan_jobs(GROUPS, 5, (0.05, 0.2))
    assert len({job.key for job in jobs}) == len(jobs)
    for method in METHODS:
        of_method = [job for job in jobs if (job.group, job.method, job.budget) == ("methods", method, 0.2)]
        assert sorted(job.seed for job in of_method) == list(range(5))


def test_finished_trainings_are_found_again_and_new_columns_fit(tmp_path):
    path = tmp_path / "results.csv"
    jobs = [Job("methods", "random", 0.2, 0), Job("methods", "oracle", 0.2, 0)]
    append(path, line("random", 0, em_mean=0.5))
    append(path, line("oracle", 0, em_mean=0.6, em_shift=0.1))
    assert finished(path) == {job.key for job in jobs}
    assert [one["em_shift"] for one in read_lines(path)] == ["", "0.1"]


def test_share_of_the_oracles_gain():
    found = results(random=["000000"] * 2, oracle=["111111"] * 2, ours=["111100"] * 2, worse=["000000"] * 2)
    assert found.share_of_gain("ours", "random", "oracle") == pytest.approx((0.5, 0.5, 0.5))
    assert found.share_of_gain("worse", "random", "oracle")[0] == 0
    assert np.isnan(found.share_of_gain("missing", "random", "oracle")[0])


def test_worst_source_is_where_a_method_loses_most_against_random():
    found = results(random=["111111"], ours=["110011"])
    worst, plain, low, high = found.worst_source("ours", "random")
    assert (worst, plain) == ("maps", -0.5)
    assert low < -0.5 < high


def test_differences_are_paired_by_row_and_sources_count_alike():
    found = results(random=["110010", "110010"], ours=["111010", "111010"], same=["110010", "110010"])
    assert found.difference("same", "random") == (0, 0, 0)
    plain, low, high = found.difference("ours", "random")
    assert plain == pytest.approx(0.125)  # one of four maps, one of two sources
    assert low == 0
    assert 0.2 < high <= 0.375 + 1e-9


def test_epochs_are_counted_and_every_row_comes_plain_and_masked_as_often_in_twice():
    rows = Rows([torch.ones(4)] * 10, [torch.ones(4)] * 10, torch.zeros(10, dtype=torch.long), torch.zeros(1, 1, 1))
    plain = _plan(rows, Recipe(epochs=4, batch=5), np.random.default_rng(0), False, None)
    twice = _plan(rows, Recipe(epochs=4, batch=5), np.random.default_rng(0), True, None)
    assert len(plain) == len(twice) == 8
    assert sum(int(is_second.sum()) for _, is_second in twice) == 20
    assert len(_plan(rows, Recipe(epochs=4, batch=5), np.random.default_rng(0), True, 11)) == 11


def test_a_folder_of_another_base_is_refused(tmp_path):
    bases = [tmp_path / name for name in ("one", "two")]
    for base in bases:
        base.mkdir()
        (base / "model.safetensors").write_text(base.name)
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "suite.json").write_text('{"fingerprint": "f"}')
    check_identity(Workplace(tmp_path, bases[0]), {"lr": 1.0})
    check_identity(Workplace(tmp_path, bases[0], bases[1]), {"lr": 1.0})
    with pytest.raises(SystemExit, match="another base"):
        check_identity(Workplace(tmp_path, bases[1]), {"lr": 1.0})
    with pytest.raises(SystemExit, match="another recipe"):
        check_identity(Workplace(tmp_path, bases[0]), {"lr": 2.0})

"""Planning, resuming, picking and reporting of the evidence run."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from benchmarks.evidence.__main__ import describe_scores
from benchmarks.evidence.jobs import GROUPS, METHODS, Job, append, finished, make_worker, plan_jobs, read_lines
from benchmarks.evidence.methods import read_pool
from benchmarks.evidence.report import read_results, write_report
from benchmarks.evidence.results import Results
from benchmarks.evidence.scoring import best_mask, old_choice, score_pool, steps
from benchmarks.evidence.training import Recipe, _plan
from benchmarks.evidence.workplace import Workplace, check_identity, describe_machine, record
from benchmarks.suite import bases
from benchmarks.suite.cached import Rows
from transformers import AutoTokenizer

SOURCES = ["maps", "maps", "maps", "maps", "flags", "flags"]


def line(method: str, seed: int, **columns: object) -> dict[str, object]:
    budget = {"none": 0.0, "full": 1.0}.get(method, 0.2)
    job = {"base": "A", "pool": "half", "method": method, "budget": budget, "seed": seed, "accounting": "epochs"}
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


def place_of(folder, base=None, name="A") -> Workplace:
    return Workplace(folder, folder / "suite", base or folder / "base", name, "half", folder / "judge.csv")


def test_every_job_is_planned_once_and_every_method_has_every_seed():
    jobs = plan_jobs("A", "half", GROUPS, 5)
    assert len({job.key for job in jobs}) == len(jobs)
    for method in METHODS:
        of_method = [job for job in jobs if (job.method, job.budget) == (method, 0.2)]
        assert sorted(job.seed for job in of_method) == list(range(5))


def test_the_core_of_every_seed_comes_first_and_other_budgets_late():
    jobs = plan_jobs("A", "half", ["core", "rounds", "methods", "budgets"], 2)
    names = [job.method for job in jobs]
    first_other = names.index("delta/quota")
    assert Counter(names[:first_other])["rounds1_chosen/trusted"] == Counter(names[:first_other])["select"] == 2
    assert {job.budget for job in jobs[:first_other]} == {0.0, 0.2, 1.0}
    assert max(jobs.index(job) for job in jobs if job.budget == 0.2) < min(
        jobs.index(job) for job in jobs if job.budget == 0.4
    )


def test_finished_trainings_are_found_again_and_new_columns_fit(tmp_path):
    path = tmp_path / "judge.csv"
    jobs = [Job("A", "half", "random"), Job("A", "half", "oracle")]
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


def test_a_run_that_was_cut_short_is_compared_on_the_seeds_that_it_has():
    found = results(random=["110010", "111111"], ours=["110010"], none=["000000"])
    assert found.difference("ours", "random") == (0, 0, 0)
    assert found.difference("random", "none")[0] == pytest.approx(0.75)


def test_epochs_are_counted_and_every_row_comes_plain_and_masked_as_often_in_twice():
    rows = Rows([torch.ones(4)] * 10, [torch.ones(4)] * 10, torch.zeros(10, dtype=torch.long), torch.zeros(1, 1, 1))
    plain = _plan(rows, Recipe(epochs=4, batch=5), np.random.default_rng(0), False, None)
    twice = _plan(rows, Recipe(epochs=4, batch=5), np.random.default_rng(0), True, None)
    assert len(plain) == len(twice) == 8
    assert sum(int(is_second.sum()) for _, is_second in twice) == 20
    assert len(_plan(rows, Recipe(epochs=4, batch=5), np.random.default_rng(0), True, 11)) == 11


def test_a_name_of_another_base_or_recipe_is_refused(tmp_path):
    homes = [tmp_path / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
        (home / "model.safetensors").write_text(home.name)
    write_suite(tmp_path / "suite", {"test": [{"source": source} for source in SOURCES]})
    check_identity(place_of(tmp_path, homes[0]), {"lr": 1.0})
    check_identity(place_of(tmp_path, homes[0]), {"lr": 1.0})
    check_identity(place_of(tmp_path, homes[1], "B"), {"lr": 1.0})
    with pytest.raises(SystemExit, match="another base"):
        check_identity(place_of(tmp_path, homes[1]), {"lr": 1.0})
    with pytest.raises(SystemExit, match="another recipe"):
        check_identity(place_of(tmp_path, homes[0]), {"lr": 2.0})


def write_suite(folder, splits) -> None:
    folder.mkdir(exist_ok=True)
    for name, entries in splits.items():
        (folder / f"{name}.json").write_text(json.dumps(entries))
    rows = {name: len(entries) for name, entries in splits.items()}
    (folder / "suite.json").write_text(json.dumps({"fingerprint": "f", "rows": rows}))


def test_the_masks_are_what_the_calibration_and_the_rule_before_it_choose():
    def of(form: str, block: int, worst: float, mean: float, is_control: bool = False):
        settings = {"fraction": 0.4, "block": block}
        return {"form": form, "settings": settings, "worst": worst, "mean": mean, "is_control": is_control}

    candidates = [
        of("delta", -2, 0.6, 0.7),
        of("delta_minus_loss", -3, 0.5, 0.8),
        of("delta", -2, 0.9, 0.9, is_control=True),
        {"form": "low_loss", "settings": None, "worst": 0.9, "mean": 0.9, "is_control": False},
    ]
    ways = [{"name": "judge", "settings": None}, {"name": "delta", "settings": {"fraction": 0.4, "block": -1}}]
    report = {"ways": ways, "candidates": candidates}
    assert best_mask(report) == {"fraction": 0.4, "block": -1}
    assert old_choice(report) == ("delta", {"fraction": 0.4, "block": -2})


def test_each_group_of_rounds_calibrates_and_scores_with_them(tmp_path):
    found = steps(place_of(tmp_path), ["core", "rounds2"], "cpu")
    assert list(found) == ["calibrate_0", "score_0", "calibrate_2", "score_2"]
    assert "--rounds" not in found["calibrate_0"]()
    assert found["calibrate_2"]()[-2:] == ["--rounds", "2"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory, embedded):
    """A tiny base, and a suite of 70 of the embedded rows with one picture and question, scored for all methods."""
    folder = tmp_path_factory.mktemp("evidence")
    tokenizer = AutoTokenizer.from_pretrained(embedded / "model")
    torch.manual_seed(0)
    bases.save(bases.make_model(bases.SHAPES["tiny"], tokenizer), tokenizer, folder / "base")
    entries = [one for one in json.loads((embedded / "pool.json").read_text()) if isinstance(one.get("image"), str)]
    entries = [one | {"conversations": one["conversations"][:2]} for one in entries[:100]]
    write_suite(folder / "suite", {"pool": entries[:70], "test": entries[70:]})
    (folder / "suite" / "images").symlink_to(embedded / "images")
    (folder / "suite" / "defects.json").write_text(json.dumps({str(row): "generic" for row in range(0, 70, 3)}))
    place = place_of(folder)
    check_identity(place, {"lr": 0.001})
    assert score_pool(place, ["core", "methods"], "cpu").keys() == {"calibrate_0", "score_0", "old", "paper"}
    return place


WITHOUT_ROUNDS = [method for method in METHODS if not method.startswith("rounds")]


@pytest.mark.parametrize("method", [*WITHOUT_ROUNDS, "none", "full"])
def test_every_method_picks_its_share(scored, method):
    pool = read_pool(scored)
    picks = pool.pick(method, 0.2, 0)
    assert len(picks) == {"none": 0, "full": 70}.get(method, 14)
    assert (np.diff(picks) > 0).all()
    facts = pool.describe(method, picks)
    assert ("auroc" in facts) == ("/" in method or method == "select")
    assert method != "oracle" or facts["defects"] == 0
    if method.endswith("/trusted"):
        assert pool.pick(method, 0.2, 1).tolist() != picks.tolist()


def test_a_training_is_measured_reported_and_not_repeated_for_the_same_picks(scored):
    worker = make_worker(scored, Recipe(epochs=1, batch=8), "cpu", ("pool", "test"), read_pool(scored))
    for method in ("none", "random", "low_loss/top"):
        append(scored.csv, worker.run(Job("A", "half", method, 0.0 if method == "none" else 0.2)))
    before = read_lines(scored.csv)
    assert [one["n_rows"] for one in before] == ["0", "14", "14"]
    again = worker.run(Job("A", "half", "low_loss/top", accounting="epochs"))
    assert (again["seconds"], again["right"]) == (before[2]["seconds"], before[2]["right"])
    other = worker.run(Job("A", "half", "low_loss/top", seed=1))
    assert other["trained"] != before[2]["trained"]
    describe_scores(scored, {"score_0": 1.0, "paper": 1.0})
    record(scored, options="--base-name A", taught={}, machine=describe_machine())
    found, _ = read_results(scored.csv)["A/half"]
    assert found.is_right("none").shape == (1, 30)
    report = write_report(scored.csv)
    assert report.name == "RESULTS-judge.md"
    assert "| low_loss/top | 1 |" in report.read_text()

"""Scoring on a Ray cluster and in shards gives what one process gives, also when workers and drivers are killed."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
import pytest

from delta_attnmask import cli
from delta_attnmask.errors import ArtifactError, UnitsFailedError
from delta_attnmask.manifest import Manifest
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import Record
from delta_attnmask.runs import RunFolder
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.scoring.worker import Task, UnitWorker
from delta_attnmask.settings import MaskSettings
from tests.executing.workers import Writing, drive
from tests.test_kill import begin, begin_call, finish, wait_for_units
from tests.test_shards import manifest as manifest  # the fixture

N_ROWS, UNIT_ROWS = 24, 2
PLAN = ScoringPlan(MaskSettings.paper(), embed=True)


def command(home: Path, out: Path, *options: str) -> list[str]:
    files = ["--model", home / "model", "--data", home / "pool.json", "--images", home / "images", "--out", out]
    settings = [] if "--settings" in options else ["--settings", "paper"]
    fixed = [*settings, "--dtype", "float32", "--device", "cpu", "--embeddings"]
    return ["score", *map(str, files), *fixed, "--limit", str(N_ROWS), "--unit-rows", str(UNIT_ROWS), *options]


def call(arguments: list[str]) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return caught.value.code


def tables(out: Path) -> tuple[pa.Table, pa.Table | None]:
    run = RunFolder.open(out)
    return run.read_scores(), run.read_side("embeddings")


@pytest.fixture(scope="module")
def task(embedded: Path) -> Task:
    return Task(FileRows(embedded / "pool.json", embedded / "images", limit=N_ROWS), "", PLAN, UNIT_ROWS)


@pytest.fixture(scope="module")
def alone(
    embedded_model: LoadedModel, task: Task, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pa.Table, pa.Table | None]:
    """The tables of one process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    score_dataset(embedded_model, task.rows, out, task.plan, unit_rows=UNIT_ROWS)
    return tables(out)


def in_the_middle(out: Path, n_units: int, action: Callable[[], None]) -> threading.Thread:
    """Do something once so many units are in place."""

    def wait_and_act() -> None:
        deadline = time.monotonic() + 300
        while len(list((out / "scores").glob("unit-*"))) < n_units and time.monotonic() < deadline:
            time.sleep(0.005)
        action()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    return thread


def kill_a_worker() -> None:
    processes = psutil.Process().children(recursive=True)
    workers = [process for process in processes if process.name().startswith("ray::_Actor")]
    workers[0].kill()


@pytest.mark.timeout(400)
def test_ray_gives_the_table_of_one_process_though_a_worker_is_killed(
    cluster: str, embedded: Path, alone: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    killer = in_the_middle(out, 2, kill_a_worker)
    assert call(command(embedded, out, "--engine", "ray", "--actors", "2")) == 0
    killer.join()
    assert tables(out) == alone  # bit for bit: the same code on one kind of machine
    assert RunFolder.open(out).is_complete
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.timeout(400)
def test_a_driver_that_is_killed_and_started_again_goes_on(cluster: str, manifest: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "run"
    writing = Writing(out, replace(manifest, n_rows=200))
    driver = begin_call(drive, writing, cluster, dict(os.environ))
    wait_for_units(out, 5, seconds=300)
    driver.kill()
    finish(driver)
    in_place = {path: path.stat().st_mtime_ns for path in (out / "scores").glob("unit-*")}
    assert 5 <= len(in_place) < 40
    assert not RunFolder.open(out).is_complete
    drive(replace(writing, seconds=0.0), cluster, os.environ)
    assert {path: path.stat().st_mtime_ns for path in in_place} == in_place
    assert RunFolder.open(out).is_complete
    assert RunFolder.open(out).read_scores()["delta"].to_pylist() == [row / 2 for row in range(200)]


def test_shards_give_the_table_of_one_process(
    embedded: Path, alone: tuple[pa.Table, pa.Table], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    shards = [begin(command(embedded, out, "--shard", f"{index}/2")) for index in range(2)]
    assert [finish(shard) for shard in shards] == [0, 0]
    assert not RunFolder.open(out).is_complete
    assert tables(out) == alone
    assert call(["merge", str(out)]) is None
    assert "24 rows, each once, in 1 file; next: delta-attnmask select" in capsys.readouterr().out
    assert tables(out) == alone
    assert call(["select", str(out), "--keep", "20%", "--out", str(tmp_path / "best.json")]) == 0
    assert call(command(embedded, out)) == 0  # nothing is left to do


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--actors", "2"], "--actors: only for --engine ray"),
        (["--address", "auto", "--gpus-per-actor", "1"], "--gpus-per-actor, --address: only for --engine ray"),
        (["--engine", "ray", "--shard", "0/2"], "--engine ray distributes the units itself"),
        (["--engine", "ray", "--settings", "auto"], "calibrate … --out CAL"),
        (["--shard", "2/2"], "expected I/N with I from 0 to N-1"),
    ],
)
def test_options_that_contradict_each_other(
    embedded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert call(command(embedded, tmp_path / "run", *options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Units that fail, and workers that aren't alike


class FailingRows(FileRows):
    """Rows whose storage fails where a unit of these first rows is read; `reads` counts."""

    reads: list[int]
    failing: frozenset[int] = frozenset()

    def records(self, start: int, stop: int) -> Iterator[Record]:
        self.reads.append(start)
        if start in self.failing:
            raise MemoryError("planned")
        return super().records(start, stop)


@pytest.fixture
def rows(embedded: Path) -> FailingRows:
    found = FailingRows(embedded / "pool.json", embedded / "images", limit=N_ROWS)
    found.reads = []
    return found


def test_a_unit_that_keeps_failing_is_listed_and_tried_again_at_the_next_start(
    embedded_model: LoadedModel, rows: FailingRows, alone: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    rows.failing = frozenset({6})
    score = partial(score_dataset, embedded_model, rows, tmp_path / "run", PLAN, unit_rows=UNIT_ROWS)
    with pytest.raises(UnitsFailedError, match=r"unit 3 \(rows 6 to 7\): MemoryError: planned"):
        score()
    assert rows.reads.count(6) == 3
    run = RunFolder.open(tmp_path / "run")
    assert run.finished_units() == {*range(12)} - {3}
    assert '"unit": 3,' in (run.path / "failed.json").read_text()
    rows.failing = frozenset()
    score()
    assert tables(run.path) == alone
    assert not (run.path / "failed.json").exists()


def test_a_run_in_which_nothing_succeeds_ends_early(
    embedded_model: LoadedModel, rows: FailingRows, tmp_path: Path
) -> None:
    rows.failing = frozenset(range(N_ROWS))
    with pytest.raises(UnitsFailedError, match="3 units failed 3 times each, all that were tried; unit 0"):
        score_dataset(embedded_model, rows, tmp_path / "run", PLAN, unit_rows=1)
    assert set(rows.reads) == {*range(N_ROWS)}


def test_a_worker_with_another_model_is_refused(embedded_model: LoadedModel, task: Task, tmp_path: Path) -> None:
    task = replace(task, out=str(tmp_path / "run"))
    worker = UnitWorker(embedded_model, task)
    with pytest.raises(ArtifactError, match=r"has no manifest\.json.*All workers need the same model, data and run"):
        next(worker.run([0]))
    other = replace(worker.manifest, model_fingerprint="e")
    with (
        RunFolder.start(task.out, other),
        pytest.raises(ArtifactError, match=r"^on .*holds another run.*model_fingerprint"),
    ):
        next(worker.run([0]))


def test_worker_processes_give_the_table_of_one_process(
    embedded_model: LoadedModel, task: Task, alone: tuple[pa.Table, pa.Table], tmp_path: Path
) -> None:
    plan = replace(task.plan, workers=2)
    run = score_dataset(embedded_model, task.rows, tmp_path / "run", plan, unit_rows=UNIT_ROWS)
    assert tables(run.path) == alone


def test_shards_of_the_python_interface(embedded_model: LoadedModel, task: Task, tmp_path: Path) -> None:
    from delta_attnmask.manifest import Shard

    seen: list[tuple[int, int]] = []
    run = score_dataset(
        embedded_model,
        task.rows,
        tmp_path / "run",
        task.plan,
        unit_rows=8,
        shard=Shard(1, 2),
        on_progress=lambda n_done, n_rows, n_failed=0, n_before=0: seen.append((n_done, n_rows)),
    )
    assert run.finished_units() == {1}
    assert (seen[0], seen[-1]) == ((0, 8), (8, 8))
    assert not run.is_complete

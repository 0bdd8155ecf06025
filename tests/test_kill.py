"""A run that is killed or stopped goes on where it was, and ends with the table of a run that wasn't."""

import io
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delta_attnmask import cli
from delta_attnmask.runs import RunFolder

N_ROWS, UNIT_ROWS = 20, 2


@dataclass(frozen=True)
class Moment:
    """SIGKILL comes at the n-th call of a function: before it, or in the middle of what it writes."""

    name: str
    function: str
    n: int = 1
    is_half_written: bool = False


MOMENTS = [
    Moment("while the input is read", "delta_attnmask.reading.rows:fingerprint_file"),
    Moment("before the manifest is in place", "pathlib:Path.replace"),
    Moment("behind the manifest", "delta_attnmask.storage:_sync_folder"),
    Moment("in the self-check", "delta_attnmask.modeling.selfcheck:check_model"),
    Moment("in a batch", "delta_attnmask.scoring.units:sweep_batch", n=2),
    Moment("while rows are encoded", "delta_attnmask.encoding.encoder:Encoder._draft", n=8),
    Moment("while a side table is written", "delta_attnmask.folders:pq.write_table", is_half_written=True),
    Moment("between a side table and the scores", "delta_attnmask.folders:pq.write_table", n=2),
    Moment("while the scores are written", "delta_attnmask.folders:pq.write_table", n=4, is_half_written=True),
    Moment("before the scores are in place", "pathlib:Path.replace", n=4),
    Moment("behind the scores", "delta_attnmask.storage:_sync_folder", n=2),
    Moment("before the end is marked", "delta_attnmask.runs:RunFolder.mark_complete"),
]


def command(home: Path, out: Path, *options: str, n_rows: int = N_ROWS) -> list[str]:
    files = ["--model", home / "model", "--data", home / "pool.json", "--images", home / "images", "--out", out]
    fixed = ["--settings", "paper", "--dtype", "float32", "--device", "cpu"]
    return ["score", *map(str, files), *fixed, "--limit", str(n_rows), "--unit-rows", str(UNIT_ROWS), *options]


def killed_at(moment: Moment, function: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == moment.n:
            if moment.is_half_written:
                table, file, *others = args
                function(table, whole := io.BytesIO(), *others, **kwargs)
                file.write(whole.getvalue()[: whole.tell() // 2])
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return call


def run_until(moment: Moment | None, arguments: list[str]) -> None:
    """What the child process does."""
    if moment is not None:
        path, _, name = moment.function.rpartition("." if "." in moment.function.partition(":")[2] else ":")
        owner = resolve_name(path)
        setattr(owner, name, killed_at(moment, getattr(owner, name)))
    cli.main(arguments)


def begin(arguments: list[str], moment: Moment | None = None) -> ForkServerProcess:
    """Run the command line in a process of its own."""
    return begin_call(run_until, moment, arguments)


def begin_call(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Call a function in a process of its own, forked from one that has imported everything."""
    context = get_context("forkserver")
    modules = ("cli.score", "scoring.jobs", "running.run")
    context.set_forkserver_preload([*(f"delta_attnmask.{name}" for name in modules), "transformers"])
    child = context.Process(target=function, args=arguments)
    child.start()
    return child


def told(log: Path, arguments: list[str], before: Callable[[], Any] = lambda: None) -> None:
    """What a child does: something to itself, then the command; what it says goes to a file."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    before()
    cli.main(arguments)


def finish(child: ForkServerProcess) -> int:
    """Its exit code."""
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def tables(out: Path) -> dict[str, pa.Table]:
    run = RunFolder.open(out)
    assert run.is_complete
    side = {shard.name: pq.read_table(shard) for shard in sorted((out / "embeddings").glob("*"))}
    return {"scores": run.read_scores()} | side


@pytest.fixture(scope="module")
def whole(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    """The tables of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert finish(begin(command(embedded, out, "--embeddings"))) == 0
    found = tables(out)
    assert found["scores"].num_rows == N_ROWS
    assert set(found["scores"]["status"].to_pylist()) == {"ok"}
    assert len(found) == 1 + N_ROWS // UNIT_ROWS
    return found


def test_a_run_killed_at_many_moments_ends_with_the_same_table(
    embedded: Path, whole: dict[str, pa.Table], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert len(MOMENTS) >= 10
    for moment in MOMENTS:
        assert finish(begin(command(embedded, out, "--embeddings"), moment)) == -signal.SIGKILL, moment.name
        assert not (out / "complete.json").exists()
    assert finish(begin(command(embedded, out, "--embeddings"))) == 0
    assert tables(out) == whole
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]


def test_killed_and_stopped_from_outside(embedded: Path, tmp_path: Path) -> None:
    n_rows = 3 * N_ROWS  # enough that a signal comes in time
    out = tmp_path / "run"
    killed = begin(command(embedded, out, n_rows=n_rows))
    wait_for_units(out, 2)
    killed.kill()
    assert finish(killed) == -signal.SIGKILL
    units = {path: path.stat().st_mtime_ns for path in (out / "scores").glob("unit-*")}

    log = tmp_path / "log"
    listen = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # also if these tests ignore it
    stopped = begin_call(told, log, command(embedded, out, n_rows=n_rows), listen)
    wait_for_units(out, len(units) + 2)
    assert stopped.pid is not None
    os.kill(stopped.pid, signal.SIGINT)
    assert finish(stopped) == 130
    assert log.read_text().splitlines()[-1] == "delta-attnmask: stopped; rerun the same command to resume"
    assert "Traceback" not in log.read_text()
    assert not (out / "complete.json").exists()

    assert finish(begin(command(embedded, out, n_rows=n_rows))) == 0
    assert {path: path.stat().st_mtime_ns for path in units} == units  # what was finished wasn't done again
    assert finish(begin(command(embedded, tmp_path / "whole", n_rows=n_rows))) == 0
    assert tables(out) == tables(tmp_path / "whole")


def wait_for_units(out: Path, n_units: int, seconds: float = 100) -> None:
    deadline = time.monotonic() + seconds
    while len(list((out / "scores").glob("unit-*"))) < n_units:
        assert time.monotonic() < deadline
        time.sleep(0.005)

"""SIGKILL at random moments: does the table at the end equal an undisturbed one?

    python -m benchmarks.reliability --engine local --moments 50
    python -m benchmarks.reliability --engine ray --moments 5
    python -m benchmarks.reliability --engine ray-stub --moments 50

Scores rows of the embedded data with the embedded model. Each start of `delta-attnmask score` is killed at a moment
drawn evenly from what an undisturbed start takes; then it is started again, until the run is complete. A complete run
is compared with the undisturbed one, removed, and the next begins, until enough kills have hit. With `ray` the kill
hits the driver or, three times as often, a worker process; then the driver goes on by itself, and is hit again.
`ray-stub` has workers without a model on one cluster for all starts; all else is the same code.
"""

import argparse
import os
import platform
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil
import pyarrow as pa

from benchmarks.reliability.starts import start, start_stub
from benchmarks.scale.__main__ import make_manifest
from delta_attnmask.embedded import export
from delta_attnmask.executing.actors import Cluster, connect
from delta_attnmask.runs import RunFolder

_CONTEXT = get_context("forkserver")
_PRELOADED = [
    "delta_attnmask.cli.score",
    "delta_attnmask.scoring.jobs",
    "transformers",
    "benchmarks.reliability.starts",
    "ray",
]
_WORKER = "ray::_Actor"
_OF_WORKERS = 0.75  # share of the kills that hit a worker, if there is one


@dataclass
class Home:
    """Where things lie, and what a start is."""

    folder: Path
    engine: str
    n_rows: int
    unit_rows: int
    address: str = ""

    @property
    def is_ray(self) -> bool:
        return self.engine != "local"

    def command(self, out: Path) -> list[str]:
        data = self.folder / "data"
        files = ["--model", data / "model", "--data", data / "pool.json", "--images", data / "images", "--out", out]
        sizes = ["--limit", self.n_rows, "--unit-rows", self.unit_rows, "--embeddings"]
        engine = ["--engine", "ray", "--workers", 2] if self.engine == "ray" else []
        fixed = ["--settings", "paper", "--dtype", "float32", "--device", "cpu"]
        return ["score", *map(str, [*files, *sizes, *engine, *fixed])]

    def begin(self, out: Path) -> ForkServerProcess:
        if self.engine == "ray-stub":
            arguments = (out, make_manifest(self.n_rows, self.unit_rows), self.address)
            child = _CONTEXT.Process(target=start_stub, args=arguments)
        else:
            child = _CONTEXT.Process(target=start, args=(self.command(out),))
        child.start()
        return child


@dataclass
class Tally:
    kills: Counter[str] = field(default_factory=Counter)
    n_starts: int = 0
    n_runs: int = 0
    n_different: int = 0
    n_left_over: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["local", "ray", "ray-stub"], default="local")
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--unit-rows", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), options.engine, options.rows, options.unit_rows)
        if options.engine == "ray-stub":
            ray, _ = connect(Cluster(n_actors=4))
            home.address = ray.get_runtime_context().gcs_address
        else:
            export(home.folder / "data")
        whole, seconds = undisturbed(home)
        print(f"undisturbed: {whole['scores'].num_rows} rows in {seconds:.1f} s", flush=True)
        tally = Tally()
        chance = random.Random(options.seed)
        while tally.kills.total() < options.moments:
            disturbed(home, whole, seconds, chance, tally, options.moments)
            print(tally, flush=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; seed {options.seed}")


def undisturbed(home: Home) -> tuple[dict[str, pa.Table], float]:
    """The tables of a run that nothing interrupts, and how long a warm start takes."""
    finish(home.begin(home.folder / "warm-up"))
    out = home.folder / "whole"
    started = time.perf_counter()
    if finish(home.begin(out)) != 0:
        raise SystemExit("the undisturbed run failed")
    return tables(out), time.perf_counter() - started


def disturbed(
    home: Home, whole: dict[str, pa.Table], seconds: float, chance: random.Random, tally: Tally, n_moments: int
) -> None:
    """One run, killed again and again until it is complete or enough kills have hit."""
    out = home.folder / "run"
    while not (out / "complete.json").exists():
        child = home.begin(out)
        tally.n_starts += 1
        while child.is_alive() and tally.kills.total() < n_moments:
            child.join(chance.uniform(0, seconds if home.engine == "local" else seconds / 4))
            if child.is_alive():
                tally.kills[kill_one(child, chance, home.is_ray)] += 1
        if (code := finish(child)) not in (0, -signal.SIGKILL):
            raise SystemExit(f"a start ended with {code}")
    tally.n_runs += 1
    tally.n_different += tables(out) != whole
    tally.n_left_over += sum(path.name.endswith(".tmp") for path in out.rglob("*"))
    shutil.rmtree(out)


def kill_one(child: ForkServerProcess, chance: random.Random, is_ray: bool) -> str:
    """Kill the process itself or one of its workers, if there are any yet."""
    # of a cluster that stays, the workers are no children of the driver
    workers = [process for process in psutil.process_iter() if _is_worker(process)] if is_ray else []
    if workers and chance.random() < _OF_WORKERS:
        chance.choice(workers).kill()
        return "worker"
    child.kill()
    return "driver" if is_ray else "process"


def _is_worker(process: psutil.Process) -> bool:
    """Whether it is a worker of a cluster that this program started."""
    try:
        if not process.name().startswith(_WORKER):
            return False
        return os.getpid() in {parent.pid for parent in process.parents()}
    except psutil.Error:
        return False


def finish(child: ForkServerProcess) -> int:
    child.join()
    return child.exitcode if child.exitcode is not None else 0


def tables(out: Path) -> dict[str, pa.Table]:
    run = RunFolder.open(out)
    side = {file.name: run.read_files([file]) for file in run.unit_files("embeddings")}
    return {"scores": run.read_scores(), **side}


if __name__ == "__main__":
    main()

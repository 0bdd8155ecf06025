"""What a unit costs beside its scores, how fast a finished run is recognised, and what a second worker brings.

    python -m benchmarks.scale.overhead

Elapsed times are worth something only on a machine that does nothing else; the seconds of CPU are steadier.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path

from benchmarks.reliability.starts import start
from benchmarks.scale.__main__ import make_manifest
from benchmarks.scale.stub import StubWorker
from delta_attnmask.executing.actors import Cluster, ray_pool
from delta_attnmask.executing.engines import LocalPool
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import UnitReport


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=300)
    parser.add_argument("--rows", type=int, default=2048, help="scored with the embedded model by one and two workers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recognise(Path(folder) / "recognised")
        write(Path(folder) / "written", options.units)
        hand_out(options.units * 10)
        score_with_workers(Path(folder), options.rows)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def recognise(path: Path, n_units: int = 10_000) -> None:
    """A run whose files are all there; what is in them isn't looked at."""
    manifest = make_manifest(n_units, 1)
    with RunFolder.start(path, manifest) as run:
        for unit in range(n_units):
            run.unit_path(unit).touch()
    report("recognise a finished run of 10,000 units", 1, lambda: _units_to_do(path, n_units))


def _units_to_do(path: Path, n_units: int) -> None:
    with RunFolder.start(path, make_manifest(n_units, 1)) as run:
        assert not run.units_to_do()


def write(path: Path, n_units: int) -> None:
    manifest = make_manifest(n_units * 256, 256)
    with RunFolder.start(path, manifest) as run:
        worker = StubWorker(path, manifest)
        scores = [worker.scores_of(unit) for unit in range(n_units)]
        report(
            "write a unit of 256 rows, synced", n_units, lambda: [run.write_unit(*unit) for unit in enumerate(scores)]
        )


class IdleWorker:
    """Does nothing, so that only handing out is seen."""

    def run(self, units: Iterable[int]) -> Iterator[UnitReport]:
        return (UnitReport(unit, 256, 0) for unit in units)


def hand_out(n_units: int) -> None:
    local: LocalPool[IdleWorker, UnitReport] = LocalPool(IdleWorker())
    report("hand out a unit, local", n_units, lambda: list(local.run(range(n_units))))
    with ray_pool(IdleWorker, Cluster(2, 0)) as pool:
        list(pool.run(range(100)))
        report(
            "hand out a unit, Ray with 2 workers (CPU of the driver)", n_units, lambda: list(pool.run(range(n_units)))
        )


def score_with_workers(folder: Path, n_rows: int) -> None:
    """The embedded data scored by one process and by two shards."""
    from delta_attnmask.embedded import export

    export(folder / "data")
    for n_workers in (1, 2):
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        shards = [
            _begin(folder, folder / f"by-{n_workers}", n_rows, f"{index}/{n_workers}") for index in range(n_workers)
        ]
        for shard in shards:
            shard.join()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        pace = RunFolder.open(folder / f"by-{n_workers}").pace
        print(
            f"{n_workers} workers: {n_rows} rows, {pace.seconds:.1f} s from the first unit to the last, "
            f"{time.perf_counter() - started:.1f} s with the start, {cpu:.1f} s of CPU with the start"
        )


def _begin(folder: Path, out: Path, n_rows: int, shard: str) -> SpawnProcess:
    data = folder / "data"
    files = ["--model", data / "model", "--data", data / "pool.json", "--images", data / "images", "--out", out]
    fixed = ["--settings", "paper", "--device", "cpu", "--unit-rows", "32", "--limit", n_rows, "--shard", shard]
    process = get_context("spawn").Process(target=start, args=(["score", *map(str, [*files, *fixed])],))
    process.start()
    return process


def report(what: str, n: int, work: Callable[[], object]) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    work()
    wall, worked = time.perf_counter() - started, time.process_time() - cpu
    print(f"{1e3 * wall / n:8.3f} ms elapsed, {1e3 * worked / n:8.3f} ms of CPU: {what}", flush=True)


if __name__ == "__main__":
    main()

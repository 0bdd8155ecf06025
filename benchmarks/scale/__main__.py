"""A run of ten million rows with a stub in place of the model: time, files and bytes of everything else.

    python -m benchmarks.scale --rows 10000000

Two processes score the shards 0/2 and 1/2 through the real pool and run folder, 256 rows a unit, synced to the disk as
always; only the numbers are drawn at random. Then the run is recognised, read, merged, read again, and selected from.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

from benchmarks.scale.stub import score
from delta_attnmask.manifest import Manifest, Shard
from delta_attnmask.records import Fingerprint
from delta_attnmask.runs import RunFolder, merge_run
from delta_attnmask.selecting.run_selection import select_from_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--unit-rows", type=int, default=256)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the run is put; removed at the end")
    options = parser.parse_args()
    print(f"{options.rows:,} rows, {options.unit_rows} a unit, {options.shards} processes on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder) / "run", make_manifest(options.rows, options.unit_rows), options.shards)
    print(f"{platform.machine()}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")


def measure(path: Path, manifest: Manifest, n_shards: int) -> None:
    context = get_context("spawn")
    with timed("scored by the stub"):
        shards = [context.Process(target=score, args=(path, manifest, Shard(idx, n_shards))) for idx in range(n_shards)]
        for shard in shards:
            shard.start()
        for shard in shards:
            shard.join()
    count_files(path)
    with timed("finished units are recognised"), RunFolder.start(path, manifest) as run:
        assert not run.units_to_do()
    with timed("two columns are read before merging"):
        RunFolder.open(path).read_scores(["delta", "source"])
    with timed("merged"):
        merge_run(path)
    count_files(path)
    with timed("a merged run is recognised"), RunFolder.start(path, manifest) as run:
        assert not run.units_to_do()
    with timed("two columns are read after merging"):
        run.read_scores(["delta", "source"])
    with timed("20 % is selected as `select` does"):
        selection = select_from_run(run, "20%")
    print(f"{len(selection):,} rows selected by {selection.rule}")


def make_manifest(n_rows: int, unit_rows: int) -> Manifest:
    return Manifest(
        model="stub",
        model_fingerprint="",
        settings={"form": "delta"},
        data="",
        images="",
        input=Fingerprint("", 0),
        format="llava",
        n_rows=n_rows,
        unit_rows=unit_rows,
    )


def count_files(path: Path) -> None:
    sizes = [file.stat().st_size for file in (path / "scores").iterdir()]
    print(f"         {len(sizes):,} files of scores, {sum(sizes):,} bytes", flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    started, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"{time.perf_counter() - started:7.2f} s ({time.process_time() - cpu:.2f} s CPU): {what}", flush=True)


if __name__ == "__main__":
    main()

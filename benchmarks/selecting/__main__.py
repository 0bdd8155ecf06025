"""How long it takes to select from millions of rows: `python -m benchmarks.selecting [--rows 10000000]`.

A run folder with made-up scores, 20 skewed sources, 7 answer types and 3,000 questions is written once and read back
as `select` reads it. Each figure is the best of three runs, on idle cores. `scale.py` measures many shards.
"""

import argparse
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from delta_attnmask.manifest import Manifest
from delta_attnmask.records import Fingerprint
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import SCORE_SCHEMA
from delta_attnmask.selecting.selector import select_rows

COLUMNS = ["row", "status", "source", "answer_type", "question", "delta", "loss"]
ANSWER_TYPES = ["yes/no", "number", "word", "phrase", "sentence", "paragraph", "list"]
CASES: dict[str, dict[str, Any]] = {
    "top": {"rule": "top"},
    "top by relative_delta": {"rule": "top", "by": "relative_delta"},
    "band, top 2 % left out": {"rule": "band"},
    "quota by source": {"rule": "quota", "quota_by": ("source",)},
    "quota by source and answer type": {"rule": "quota", "quota_by": ("source", "answer_type")},
    "quota by question": {"rule": "quota", "quota_by": ("question",)},
    "quota by question and answer type": {"rule": "quota", "quota_by": ("question", "answer_type")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--unit-rows", type=int, default=100_000)
    options = parser.parse_args()
    print(
        f"{options.rows:,} rows, 20 % kept; python {platform.python_version()}, numpy {np.__version__}, "
        f"pyarrow {version('pyarrow')}, {os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder), options.rows, options.unit_rows)
        for kind, encoded in (("dictionaries, as `select` reads them", True), ("plain strings", False)):
            read = partial(run.read_scores, COLUMNS, encoded=encoded)
            scores = report(f"reading {kind}", read, n_runs=1)
            for name, case in CASES.items():
                report(name, partial(select_rows, scores, "20%", **case))
            del scores
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def report(name: str, run: Callable[[], Any], n_runs: int = 3) -> Any:
    """Print the best wall-clock and CPU seconds of some runs; give what the last one gave."""
    wall, cpu = [], []
    for _ in range(n_runs):
        started, worked = time.perf_counter(), time.process_time()
        found = run()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - worked)
    print(f"  {name:45} {min(wall):6.2f} s   {min(cpu):6.2f} s of CPU", flush=True)
    return found


def write_run(folder: Path, n_rows: int, unit_rows: int) -> RunFolder:
    manifest = Manifest(
        model="none",
        model_fingerprint="",
        settings={},
        data="",
        images="",
        input=Fingerprint("", 0),
        format="llava",
        n_rows=n_rows,
        unit_rows=unit_rows,
    )
    rng = np.random.default_rng(0)
    with RunFolder.start(folder, manifest) as run:
        for unit in range(run.n_units):
            table = make_table(np.array(run.unit_rows(unit)), rng)
            run.unit_path(unit).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, run.unit_path(unit), compression="zstd")
    return run


def make_table(rows: np.ndarray[Any, Any], rng: np.random.Generator) -> pa.Table:
    n = len(rows)
    is_failed = rng.random(n) < 0.001
    loss = pa.array(rng.gamma(2, 1, n), pa.float32(), mask=is_failed)
    delta = pa.array(rng.normal(0.2, 0.3, n), pa.float32(), mask=is_failed)
    texts = {
        "source": np.char.add("source-", np.minimum(rng.geometric(0.2, n), 20).astype(str)),
        "answer_type": np.array(ANSWER_TYPES)[rng.integers(0, len(ANSWER_TYPES), n)],
        "question": np.char.add("what is in picture number ", rng.integers(0, 3000, n).astype(str)),
        "status": np.where(is_failed, "failed", "ok"),
    }
    numbers = {"row": rows, "loss": loss, "masked_loss": loss, "delta": delta}
    columns = {field.name: numbers.get(field.name, texts.get(field.name, _filler(field, n))) for field in SCORE_SCHEMA}
    return pa.table(columns, schema=SCORE_SCHEMA)


def _filler(field: pa.Field, n_rows: int) -> pa.Array:
    return pa.repeat(pa.scalar("" if field.type == pa.string() else 1, field.type), n_rows)


if __name__ == "__main__":
    main()

"""Run folders and selection at scale: `python benchmarks/selecting/scale.py [--units 10000] [--unit-rows 1000]`.

Writes the scores of made-up rows into a temporary run folder, then times what a user waits for.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from delta_attnmask.manifest import Manifest
from delta_attnmask.records import Fingerprint
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import SCORE_SCHEMA
from delta_attnmask.selecting.selector import select_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--unit-rows", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder), options.units, options.unit_rows)
        with timed("a finished run is recognised"), RunFolder.start(run.path, run.manifest) as found:
            assert not found.units_to_do()
        with timed("the columns for a selection are read"):
            scores = run.read_scores(["row", "status", "source", "delta"])
        with timed("all columns are read"):
            run.read_scores()
        with timed(f"the top 20% of {len(scores):,} rows is selected"):
            select_rows(scores, "20%", rule="top")


def write_run(path: Path, n_units: int, unit_rows: int) -> RunFolder:
    manifest = Manifest(
        model="none",
        model_fingerprint="",
        settings={},
        data="",
        images="",
        input=Fingerprint("", 0),
        format="llava",
        n_rows=n_units * unit_rows,
        unit_rows=unit_rows,
    )
    random = np.random.default_rng(0)
    with RunFolder.start(path, manifest) as run:
        for unit in range(n_units):
            run.unit_path(unit).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(make_table(run.unit_rows(unit), random), run.unit_path(unit), compression="zstd")
        run.mark_complete()
    return run


def make_table(rows: range, random: np.random.Generator) -> pa.Table:
    keys = random.bytes(32 * len(rows)).hex()
    columns = {
        "row": np.arange(rows.start, rows.stop),
        "id": [f"{row:012d}" for row in rows],
        "key": [keys[64 * n : 64 * n + 64] for n in range(len(rows))],
        "source": random.choice(["coco", "gqa", "vg", "ocr"], len(rows)),
        "status": np.where(random.random(len(rows)) < 0.01, "failed", "ok"),
    }
    for field in SCORE_SCHEMA:
        if field.name not in columns and pa.types.is_string(field.type):
            columns[field.name] = [""] * len(rows)
        elif field.name not in columns:
            columns[field.name] = (random.random(len(rows)) * 600).astype(field.type.to_pandas_dtype())
    return pa.table(columns, schema=SCORE_SCHEMA)


@contextmanager
def timed(what: str) -> Iterator[None]:
    started, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"{time.perf_counter() - started:6.2f} s ({time.process_time() - cpu:.2f} s CPU): {what}", flush=True)


if __name__ == "__main__":
    main()

"""Memory and time of data sets with images in them: `python -m benchmarks.reading.containers [ROWS] [IMAGE_BYTES]`.

Each case is counted, read from ten places in units of 256 rows with the bytes of every image, as scoring does, and
exported (every fifth row), in a process of its own. Images are random bytes: nothing is decoded.
"""

import argparse
import io
import json
import random
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

UNIT_ROWS = 256
PICTURES = pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
TALK = pa.list_(pa.struct({"from": pa.string(), "value": pa.string()}))
SCHEMA = pa.schema({"id": pa.string(), "images": PICTURES, "conversations": TALK})


def talk(n: int) -> list[dict[str, str]]:
    return [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"Thing {n}. " * 20}]


def batches(n_rows: int, n_bytes: int) -> Iterator[pa.RecordBatch]:
    draw = random.Random(0)
    for start in range(0, n_rows, 100):
        rows = [
            {"id": str(n), "images": [{"bytes": draw.randbytes(n_bytes), "path": None}], "conversations": talk(n)}
            for n in range(start, min(start + 100, n_rows))
        ]
        yield pa.RecordBatch.from_pylist(rows, SCHEMA)


def write_parquet(path: Path, n_rows: int, n_bytes: int) -> None:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for batch in batches(n_rows, n_bytes):
            writer.write_batch(batch)


def write_one_group(path: Path, n_rows: int, n_bytes: int) -> None:
    pq.write_table(pa.Table.from_batches(batches(n_rows, n_bytes)), path, row_group_size=n_rows)


def write_stream(path: Path, n_rows: int, n_bytes: int) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        for batch in batches(n_rows, n_bytes):
            writer.write_batch(batch)


def write_tar(path: Path, n_rows: int, n_bytes: int) -> None:
    draw = random.Random(0)
    with tarfile.open(path, "w") as tar:
        for n in range(n_rows):
            raw = json.dumps({"id": str(n), "conversations": talk(n)}).encode()
            for name, data in ((f"{n:09d}.jpg", draw.randbytes(n_bytes)), (f"{n:09d}.json", raw)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_json(path: Path, n_rows: int, n_bytes: int) -> None:
    """As many bytes as the others have, in text alone."""
    with path.open("w") as file:
        file.write("[")
        for n in range(n_rows * (n_bytes // 900 + 1)):
            row = {"id": str(n), "image": f"coco/{n}.jpg", "conversations": talk(n) + talk(n)}
            file.write((",\n" if n else "") + json.dumps(row))
        file.write("]")


CASES: dict[str, Callable[[Path, int, int], None]] = {
    "json": write_json,
    "parquet": write_parquet,
    "parquet, one row group": write_one_group,
    "arrow stream": write_stream,
    "tar": write_tar,
}


def measure(path: Path) -> str:
    from delta_attnmask.exporting.run_export import export_native
    from delta_attnmask.reading.rows import FileRows

    base, times = _peak_mb(), [time.perf_counter()]
    dataset = FileRows(path)
    n_rows = len(dataset)
    times.append(time.perf_counter())
    for start in random.Random(0).sample(range(0, n_rows - UNIT_ROWS, UNIT_ROWS), 10):
        for record in list(dataset.records(start, start + UNIT_ROWS)):
            for image in record.images:
                if image.startswith("embedded:"):
                    dataset.read_image_bytes(image)
    times.append(time.perf_counter())
    export_native(dataset, np.arange(0, n_rows, 5), path.with_name("out"))
    times.append(time.perf_counter())
    counted, units, exported = (after - before for before, after in pairwise(times))
    return (
        f"{path.stat().st_size / 1e6:.0f} MB | {n_rows} | {counted:.1f} | {units * 100:.0f} | {exported:.1f} | "
        f"{_peak_mb() - base:.0f}"
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("rows", type=int, nargs="?", default=6000)
    options.add_argument("image_bytes", type=int, nargs="?", default=100_000)
    options.add_argument("--file", type=Path, help="work on this file alone, in this process")
    options.add_argument("--write", choices=CASES, help="make that file; else it is measured")
    given = options.parse_args()
    if given.write:
        CASES[given.write](given.file, given.rows, given.image_bytes)
        return
    if given.file:
        print(measure(given.file))
        return
    print(
        "| data | size | rows | open and count, s | 256 rows with images, ms | export a fifth, s | memory added, MB |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"data.{'parquet' if name.startswith('parquet') else 'tar' if name == 'tar' else 'x'}"
            sizes = (str(given.rows), str(given.image_bytes))
            _call(*sizes, "--file", str(path), "--write", name)  # a child's peak begins with that of its parent
            print(f"| {name} | {_call('--file', str(path))} |", flush=True)


def _call(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.reading.containers", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()

"""How many photo-sized JPEGs a second the encoder's processes read, decode and process with Qwen2-VL's processor.

python -m benchmarks.scoring.encoding
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.scoring.photos import PHOTO, qwen_processor, write_rows
from benchmarks.scoring.report import machine
from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.encoding.row_encoder import RowEncoder, n_bytes
from delta_attnmask.errors import RowError
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.pipeline import EncodedRows, Unit

_UNIT_ROWS = 64


def rows_per_second(rows: FileRows, encoder: Encoder, n_workers: int) -> tuple[float, int]:
    """Rows a second after the first unit, which starts the processes; and the bytes of one encoded row."""
    encoded = EncodedRows(RowEncoder(encoder, rows.load_image), n_bytes, torch.device("cpu"), n_workers)
    units = (
        Unit(n, _UNIT_ROWS, rows.records(n * _UNIT_ROWS, (n + 1) * _UNIT_ROWS)) for n in range(len(rows) // _UNIT_ROWS)
    )
    n_rows = size = 0
    begun = 0.0
    try:
        for window in encoded.windows(units):
            if begun:
                n_rows += len(window.rows)
            elif window.is_last:
                begun = time.perf_counter()
            for _, encoded_row in window.rows:
                if isinstance(encoded_row, RowError):
                    raise encoded_row
            size = n_bytes(window.rows[-1][1])
        return n_rows / (time.perf_counter() - begun), size
    finally:
        encoded.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    processor = qwen_processor()
    encoder = Encoder(processor, processor.image_token_id)
    print(machine(torch.device("cpu")))
    print(f"{given.rows} rows with JPEGs of {PHOTO[0]} x {PHOTO[1]}; median rows a second of {given.repeats} repeats")
    with tempfile.TemporaryDirectory() as folder:
        rows = FileRows(write_rows(Path(folder), given.rows), Path(folder))
        found: dict[int, list[float]] = {n: [] for n in given.workers}
        for _ in range(given.repeats):
            for n_workers, rates in found.items():
                rate, size = rows_per_second(rows, encoder, n_workers)
                rates.append(rate)
    print(f"{size / 1e6:.1f} MB an encoded row")
    for n_workers, rates in found.items():
        each = ", ".join(f"{rate:.1f}" for rate in rates)
        print(f"{n_workers} workers: {sorted(rates)[len(rates) // 2]:.1f} ({each})")


if __name__ == "__main__":
    main()

"""How many photo-sized JPEGs a second the encoder's processes read, decode and process with Qwen2-VL's processor.

python -m benchmarks.scoring.encoding
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tests.reading.prompts import qwen_tokenizer, template
from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

from benchmarks.scoring.report import machine
from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.encoding.row_encoder import RowEncoder, n_bytes
from delta_attnmask.errors import RowError
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.pipeline import EncodedRows, Unit

_SIZE = (640, 480)
_UNIT_ROWS = 64
_ADDED = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def write_rows(folder: Path, n_rows: int) -> Path:
    """A LLaVA file of one question a row, each with a JPEG of its own."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(n_rows):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)  # smooth, as photos are, with some grain
        noise = random.integers(-12, 13, (_SIZE[1], _SIZE[0], 3))
        pixels = np.asarray(Image.fromarray(coarse).resize(_SIZE, Image.Resampling.BICUBIC), dtype=np.int16) + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
        question = {"from": "human", "value": "<image>\nWhat is in the picture?"}
        answer = {"from": "gpt", "value": "Fields of colour that run into one another, with some grain."}
        rows.append({"id": str(number), "image": f"{number}.jpg", "conversations": [question, answer]})
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path


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
    tokenizer = qwen_tokenizer(added=_ADDED)
    images = Qwen2VLImageProcessor()
    processor = Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=template("qwen2-vl"))
    encoder = Encoder(processor, processor.image_token_id)
    print(machine(torch.device("cpu")))
    print(f"{given.rows} rows with JPEGs of {_SIZE[0]} x {_SIZE[1]}; median rows a second of {given.repeats} repeats")
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

"""What masked states cost a training step: forward and backward on the embedded data, without an optimizer.

    OMP_NUM_THREADS=1 python -m benchmarks.augmenting --rounds 15

Each round makes a step of every kind, one after the other, so that a busy machine slows all of them alike. Processor
time, median over the rounds.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from delta_attnmask import AugmentationSettings, MaskSettings, masked_states
from delta_attnmask.batches import EncodedBatch
from delta_attnmask.embedded import export
from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.modeling.load import load_model
from delta_attnmask.reading.rows import FileRows

KINDS: dict[str, AugmentationSettings | None] = {
    "none": None,
    "masked": AugmentationSettings(mask=MaskSettings.paper(), probability=1.0),
    "masked, probability 0.5": AugmentationSettings(mask=MaskSettings.paper(), probability=0.5),
    "random tokens": AugmentationSettings(mask=MaskSettings(queries="all", order="random", block=-2), probability=1.0),
}


def read_batch(folder: Path, n_rows: int) -> tuple[nn.Module, EncodedBatch]:
    """The embedded model in training mode, and its first rows with an image."""
    loaded = load_model(str(folder / "model"), dtype="float32", device="cpu")
    dataset, encoder = FileRows(folder / "pool.json", folder / "images"), make_encoder(loaded)
    records = [record for record in dataset.records(0, 2 * n_rows) if record.images][:n_rows]
    samples = [encoder.encode(record, [dataset.load_image(name) for name in record.images]) for record in records]
    return loaded.model.train(), collate(samples, encoder.pad_token_id)


def step_seconds(model: nn.Module, batch: EncodedBatch, settings: AugmentationSettings | None) -> float:
    context: AbstractContextManager[Any] = masked_states(model, settings) if settings else nullcontext()
    with context:
        began = time.process_time()
        model(**batch.inputs, labels=batch.labels, use_cache=False).loss.backward()
        seconds = time.process_time() - began
    model.zero_grad()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, batch = read_batch(export(Path(folder)), options.rows)
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(options.rounds + 1):
            for kind, settings in KINDS.items():
                times[kind].append(step_seconds(model, batch, settings))
    plain = statistics.median(times["none"][1:])  # the first round warms up
    for kind, seconds in times.items():
        median = statistics.median(seconds[1:])
        print(f"{kind:26} {1000 * median:7.1f} ms a step {median / plain:6.3f}")


if __name__ == "__main__":
    main()

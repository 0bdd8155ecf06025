"""Trains the embedded model from scratch: `python -m embedded.train --out FOLDER --minutes 5`.

Everything lies on one device as small integers; a step gathers its batch there. Accuracy is by exact match of a
whole answer: a greedy answer equals the reference exactly when every one of its tokens, the end mark included, is the
likeliest one after the reference's own start, so that one forward pass measures what generation would give.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlavaForConditionalGeneration

from .build import SHIPPED
from .corpus import Corpus, generate
from .modelfiles import IMAGE, SHAPES, make_config, save_parts, train_tokenizer
from .sources import SOURCES

LENGTH_STEP = 16  # rows of a batch have lengths within one such bucket
DEV_ROWS = 3000


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    out: Path
    shape: str
    rows: int
    minutes: float
    batch: int
    peak_rate: float
    weight_decay: float
    warmup: float
    seed: int
    processes: int
    device: str
    save_every_s: float


@dataclass(slots=True)
class Loaded:
    """A corpus on the device."""

    tokens: torch.Tensor
    is_answer: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    picture_of: torch.Tensor
    pictures: torch.Tensor
    source_of: torch.Tensor


@dataclass(slots=True)
class Batch:
    """tokens, labels: (row, position); pixels: (picture, 3, 64, 64) in the rows' order, or None."""

    tokens: torch.Tensor
    is_answer: torch.Tensor
    pixels: torch.Tensor | None
    rows: torch.Tensor


def main() -> None:
    """Draw the rows, train until the time is up, save, report."""
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    save_parts(options.out, tokenizer)
    started = time.perf_counter()
    train, dev = draw_data(options)
    print(f"drew {len(train.source_of)} rows, {len(train.tokens)} tokens, {len(train.pictures)} pictures "
          f"in {time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    model = LlavaForConditionalGeneration(make_config(SHAPES[options.shape], tokenizer)).to(options.device)
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    log = fit(model, load(train, options.device), load(dev, options.device), options, image_id)
    save_weights(model, options.out)
    log["dev"] = evaluate(model, load(dev, options.device), image_id)
    (options.out / "training.json").write_text(json.dumps(log | {"options": vars_of(options)}, indent=1, default=str))
    print(json.dumps(log["dev"]), flush=True)


def draw_data(options: Options) -> tuple[Corpus, Corpus]:
    """Training and development rows, none with a picture of what ships."""
    forbidden = shipped_digests()
    tokenizer_file = options.out / "tokenizer.json"
    train = generate(options.rows, "train", tokenizer_file, forbidden, options.processes)
    dev_rows = min(DEV_ROWS, options.rows)
    return train, generate(dev_rows, "dev", tokenizer_file, forbidden, options.processes)


def shipped_digests() -> frozenset[str]:
    """Fingerprints of every picture in the shipped pool and test set."""
    import io
    import zipfile

    from PIL import Image as PILImage

    from .build import digest

    with zipfile.ZipFile(SHIPPED / "images.zip") as archive:
        opened = (PILImage.open(io.BytesIO(archive.read(name))) for name in archive.namelist())
        return frozenset(digest(np.asarray(picture.convert("RGB"))) for picture in opened)


def fit(model: LlavaForConditionalGeneration, train: Loaded, dev: Loaded, options: Options, image_id: int) -> dict[str, object]:
    """Train against the clock: the learning rate follows the share of the time that is gone."""
    optimizer = make_optimizer(model, options)
    started = saved = told = time.perf_counter()
    step, history, running = 0, [], torch.zeros((), device=options.device)
    for batch in batches(train, options.batch, options.seed):
        now = time.perf_counter()
        progress = (now - started) / (60 * options.minutes)
        if progress >= 1:
            break
        set_rate(optimizer, options, progress)
        running = 0.99 * running + 0.01 * train_step(model, optimizer, batch, image_id)
        step += 1
        if now - told > 15:
            print(f"{now - started:5.0f} s  step {step}  loss {running.item() / (1 - 0.99 ** step):.4f}", flush=True)
            told = now
        if now - saved > options.save_every_s:
            save_weights(model, options.out)
            history.append({"step": step, "elapsed_s": round(now - started)} | evaluate(model, dev, image_id))
            print(json.dumps(history[-1]), flush=True)
            saved = time.perf_counter()
    return {"steps": step, "elapsed_s": time.perf_counter() - started, "history": history, "rows": len(train.source_of)}


def train_step(model: LlavaForConditionalGeneration, optimizer: torch.optim.Optimizer, batch: Batch, image_id: int) -> torch.Tensor:
    """One step; returns the mean loss over answer tokens."""
    logits, targets = answer_logits(model, batch, image_id)
    loss = functional.cross_entropy(logits.float(), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def answer_logits(model: LlavaForConditionalGeneration, batch: Batch, image_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets at answer tokens alone, rows and positions in order."""
    inner = model.model
    with torch.autocast(batch.tokens.device.type, torch.bfloat16, enabled=batch.tokens.device.type == "cuda"):
        hidden = inner.language_model.embed_tokens(batch.tokens)
        if batch.pixels is not None:
            seen = inner.vision_tower(batch.pixels).last_hidden_state[:, 1:]
            features = inner.multi_modal_projector(seen).to(hidden.dtype)
            hidden = hidden.masked_scatter((batch.tokens == image_id)[..., None], features)
        # Padding is on the right, so that the causal mask alone keeps it away from what counts.
        out = inner.language_model(inputs_embeds=hidden, use_cache=False).last_hidden_state
        return model.lm_head(out[:, :-1][batch.is_answer[:, 1:]]), batch.tokens[:, 1:][batch.is_answer[:, 1:]]


@torch.no_grad()
def evaluate(model: LlavaForConditionalGeneration, data: Loaded, image_id: int, batch: int = 250) -> dict[str, float]:
    """Exact match of whole answers, and the mean loss, by source."""
    hits: dict[str, list[torch.Tensor]] = {}
    names = list(SOURCES)
    for part in ordered_batches(data, batch):
        logits, targets = answer_logits(model, part, image_id)
        right, loss = logits.argmax(-1) == targets, functional.cross_entropy(logits.float(), targets, reduction="none")
        marks = part.is_answer[:, 1:]
        row, position = marks.nonzero(as_tuple=True)
        is_new = torch.ones_like(row, dtype=torch.bool)
        is_new[1:] = (row[1:] != row[:-1]) | (position[1:] != position[:-1] + 1)
        turn = is_new.long().cumsum(0) - 1
        whole = torch.ones(int(turn[-1]) + 1, device=turn.device).scatter_reduce(0, turn, right.float(), "amin")
        source = data.source_of[part.rows[row[is_new]]]
        for i in source.unique().tolist():
            hits.setdefault(names[i], []).append(whole[source == i])
            hits.setdefault("loss", []).append(loss)
    return {name: round(torch.cat(values).mean().item(), 4) for name, values in sorted(hits.items())}


def batches(data: Loaded, size: int, seed: int) -> Iterator[Batch]:
    """Batches for ever: every row once an epoch, rows of a batch alike in length."""
    rng = np.random.default_rng(seed)
    bucket = (data.lengths.cpu().numpy() // LENGTH_STEP).astype(np.int64)
    while True:
        order = rng.permutation(len(bucket))
        order = order[np.argsort(bucket[order], kind="stable")]
        parts = [order[i : i + size] for i in range(0, len(order), size)]
        for i in rng.permutation(len(parts)):
            yield gather(data, torch.from_numpy(parts[i]).to(data.tokens.device))


def ordered_batches(data: Loaded, size: int) -> Iterator[Batch]:
    """All rows, shortest first."""
    for rows in data.lengths.argsort().split(size):
        yield gather(data, rows)


def gather(data: Loaded, rows: torch.Tensor) -> Batch:
    """The rows' tokens padded on the right, and their pictures."""
    lengths = data.lengths[rows]
    columns = torch.arange(int(lengths.max()), device=rows.device)
    inside = columns < lengths[:, None]
    places = (data.starts[rows][:, None] + columns).clamp_max(len(data.tokens) - 1)
    tokens = torch.where(inside, data.tokens[places].long(), 0)
    pictures = data.picture_of[rows].flatten()
    pictures = pictures[pictures >= 0]
    pixels = data.pictures[pictures].permute(0, 3, 1, 2).float().div(127.5).sub(1) if len(pictures) else None
    return Batch(tokens, data.is_answer[places] & inside, pixels, rows)


def load(corpus: Corpus, device: str) -> Loaded:
    """The corpus on the device."""
    def put(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Loaded(
        put(corpus.tokens), put(corpus.is_answer), put(corpus.starts[:-1]), put(corpus.lengths),
        put(corpus.picture_of.astype(np.int64)), put(corpus.pictures), put(corpus.source_of.astype(np.int64)),
    )  # fmt: skip


def make_optimizer(model: LlavaForConditionalGeneration, options: Options) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=options.peak_rate, betas=(0.9, 0.98), fused=options.device == "cuda")


def set_rate(optimizer: torch.optim.Optimizer, options: Options, progress: float) -> None:
    """Linear warm-up, then a cosine down to nothing."""
    warm = min(1.0, progress / options.warmup)
    rest = max(0.0, (progress - options.warmup) / (1 - options.warmup))
    for group in optimizer.param_groups:
        group["lr"] = options.peak_rate * warm * 0.5 * (1 + math.cos(math.pi * rest))


def save_weights(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """The weights rounded to float16; the configuration says float32, so that they load as such."""
    named = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}  # tied to the embeddings
    kept = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in named.items()}
    model.save_pretrained(folder, state_dict=kept)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")


def install(folder: Path) -> None:
    """Copy a trained folder to where it ships."""
    target = SHIPPED / "model"
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.iterdir()):
        shutil.copy(file, target / file.name)


def vars_of(options: Options) -> dict[str, object]:
    """The options as a dictionary."""
    return {name: getattr(options, name) for name in Options.__slots__}


def read_options() -> Options:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--peak-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warmup", type=float, default=0.04)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--save-every-s", type=float, default=60.0)
    return Options(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()

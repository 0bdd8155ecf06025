"""Stage two: trains projector and language model, then everything, against the clock.

`python -m embedded.train --out FOLDER --tower TOWER.pt --minutes 60`. Batches are gathered from rows that lie on the
device as small integers. Accuracy is by exact match of a whole answer: a greedy answer equals the reference exactly
when every one of its tokens, the end mark included, is the likeliest one after the reference's own start, so that one
forward pass measures what generation would give.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage
from torch.nn import functional
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from .build import SHIPPED, digest
from .clock import rate_at, tell
from .corpus import Corpus, generate
from .modelfiles import IMAGE, SHAPES, make_config, save_parts, train_tokenizer
from .sources import SOURCES
from .sources.mixing import Split

LENGTH_STEP = 16  # rows of a batch have lengths within one such bucket


@dataclass(slots=True)
class Loaded:
    """A corpus on the device; see Corpus."""

    tokens: torch.Tensor
    is_answer: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    picture_of: torch.Tensor
    pictures: torch.Tensor
    source_of: torch.Tensor


@dataclass(slots=True)
class Batch:
    """tokens, is_answer: (row, position); pixels: (picture, 3, 64, 64) in the rows' order, or None."""

    tokens: torch.Tensor
    is_answer: torch.Tensor
    pixels: torch.Tensor | None
    rows: torch.Tensor


def main() -> None:
    """Prepare, train until the time is up, save, report."""
    options = read_options()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer) if options.tokenizer else train_tokenizer()
    save_parts(options.out, tokenizer)
    torch.manual_seed(options.seed)
    model = make_model(options, tokenizer)
    log = fit(model, options, tokenizer.convert_tokens_to_ids(IMAGE))
    save_weights(model, options.out)
    (options.out / "training.json").write_text(
        json.dumps(log | {"options": vars(options)}, indent=1, default=str) + "\n"
    )


def make_model(options: argparse.Namespace, tokenizer: object) -> LlavaForConditionalGeneration:
    """A new model with the tower of stage one, or one to train on."""
    if options.resume:
        model = LlavaForConditionalGeneration.from_pretrained(options.resume, attn_implementation=options.attention)
    else:
        config = make_config(SHAPES[options.shape], tokenizer)
        for part in (config, config.vision_config, config.text_config):
            part._attn_implementation = options.attention
        model = LlavaForConditionalGeneration(config)
    if options.tower:
        model.model.vision_tower.load_state_dict(torch.load(options.tower)["tower"])
    return model.to(options.device)


def fit(model: LlavaForConditionalGeneration, options: argparse.Namespace, image_id: int) -> dict[str, object]:
    """Train against the clock, the tower only after its share of the time; returns what happened."""
    optimizer = make_optimizer(model, options)
    dev = load(draw(options, "dev", options.dev_rows, 0), options.device)
    started = saved = told = time.perf_counter()
    step, n_rows, mean_loss, history = 0, 0, 0.0, []
    for batch in batches(options):
        now = time.perf_counter()
        if (gone := (now - started) / (60 * options.minutes)) >= 1:
            break
        model.model.vision_tower.requires_grad_(gone >= options.frozen_share)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(options.peak_rate, gone, options.warmup) * group["scale"]
        loss = train_step(model, optimizer, batch, image_id)
        step, n_rows = step + 1, n_rows + len(batch.rows)
        mean_loss += (loss - mean_loss) * max(0.01, 1 / step)
        if now - told > options.tell_every_s:
            told = now
            tell(now - started, step, {"loss": mean_loss, "rows": n_rows})
        if now - saved > options.save_every_s:
            save_weights(model, options.out)
            history.append(
                {"step": step, "rows": n_rows, "elapsed_s": round(now - started)} | evaluate(model, dev, image_id)
            )
            print(json.dumps(history[-1]), flush=True)
            saved = time.perf_counter()
    final = evaluate(model, dev, image_id)
    print(json.dumps(final), flush=True)
    return {
        "steps": step,
        "rows": n_rows,
        "elapsed_s": round(time.perf_counter() - started),
        "history": history,
        "dev": final,
    }


def train_step(
    model: LlavaForConditionalGeneration, optimizer: torch.optim.Optimizer, batch: Batch, image_id: int
) -> float:
    """One step; returns the mean loss over answer tokens."""
    logits, targets = answer_logits(model, batch, image_id)
    loss = functional.cross_entropy(logits.float(), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


def answer_logits(
    model: LlavaForConditionalGeneration, batch: Batch, image_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets at answer tokens alone, rows and positions in order."""
    inner = model.model
    with torch.autocast(batch.tokens.device.type, torch.bfloat16):
        hidden = inner.language_model.embed_tokens(batch.tokens)
        if batch.pixels is not None:
            seen = inner.vision_tower(batch.pixels).last_hidden_state[:, 1:]
            features = inner.multi_modal_projector(seen).to(hidden.dtype)
            hidden = hidden.masked_scatter((batch.tokens == image_id)[..., None], features)
        # Padding is on the right, so that the causal mask alone keeps it away from what counts.
        out = inner.language_model(inputs_embeds=hidden, use_cache=False).last_hidden_state
        return model.lm_head(out[:, :-1][batch.is_answer[:, 1:]]), batch.tokens[:, 1:][batch.is_answer[:, 1:]]


@torch.no_grad()
def evaluate(model: LlavaForConditionalGeneration, data: Loaded, image_id: int, size: int = 50) -> dict[str, float]:
    """Exact match of whole answers by source, and the mean loss of an answer token."""
    hits: dict[str, list[torch.Tensor]] = {}
    names = list(SOURCES)
    for rows in data.lengths.argsort().split(size):
        batch = gather(data, rows)
        logits, targets = answer_logits(model, batch, image_id)
        whole, row = whole_answers(logits.argmax(-1) == targets, batch.is_answer[:, 1:])
        source = data.source_of[batch.rows[row]]
        for i in source.unique().tolist():
            hits.setdefault(names[i], []).append(whole[source == i])
        hits.setdefault("loss", []).append(functional.cross_entropy(logits.float(), targets, reduction="none"))
    return {name: round(torch.cat(values).mean().item(), 4) for name, values in sorted(hits.items())}


def whole_answers(is_right: torch.Tensor, marks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """From right tokens (in the order of the marks) to whole answers, 1.0 where all are right, and each one's row."""
    row, position = marks.nonzero(as_tuple=True)
    is_first = torch.ones_like(row, dtype=torch.bool)
    is_first[1:] = (row[1:] != row[:-1]) | (position[1:] != position[:-1] + 1)
    answer = is_first.long().cumsum(0) - 1
    ones = torch.ones(int(answer[-1]) + 1, device=row.device)
    return ones.scatter_reduce(0, answer, is_right.float(), "amin"), row[is_first]


def batches(options: argparse.Namespace) -> Iterator[Batch]:
    """Batches for ever: fresh rows, each used `passes` times."""
    for part in itertools.count():
        data = load(draw(options, "train", options.rows, part), options.device)
        print(
            f"drew part {part}: {len(data.lengths)} rows, {len(data.tokens)} tokens, {len(data.pictures)} pictures",
            flush=True,
        )
        for number in range(options.passes):
            yield from shuffled(data, options.batch, seed=(options.seed, part, number))


def shuffled(data: Loaded, size: int, seed: tuple[int, ...]) -> Iterator[Batch]:
    """Every row once, rows of a batch alike in length."""
    rng = np.random.default_rng(seed)
    bucket = data.lengths.cpu().numpy() // LENGTH_STEP
    order = rng.permutation(len(bucket))
    order = order[np.argsort(bucket[order], kind="stable")]
    parts = [order[i : i + size] for i in range(0, len(order), size)]
    for i in rng.permutation(len(parts)):
        yield gather(data, torch.from_numpy(parts[i]).to(data.tokens.device))


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


def draw(options: argparse.Namespace, split: Split, n: int, part: int) -> Corpus:
    """Clean rows, none with a picture of what ships."""
    return generate(n, split, options.out / "tokenizer.json", shipped_digests(), options.processes, part)


def shipped_digests() -> frozenset[str]:
    """Fingerprints of every picture in the shipped pool and test set."""
    with zipfile.ZipFile(SHIPPED / "images.zip") as archive:
        opened = (PILImage.open(io.BytesIO(archive.read(name))) for name in archive.namelist())
        return frozenset(digest(np.asarray(picture.convert("RGB"))) for picture in opened)


def load(corpus: Corpus, device: str) -> Loaded:
    """The corpus on the device."""

    def put(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Loaded(
        put(corpus.tokens), put(corpus.is_answer), put(corpus.starts[:-1]), put(corpus.lengths),
        put(corpus.picture_of.astype(np.int64)), put(corpus.pictures), put(corpus.source_of.astype(np.int64)),
    )  # fmt: skip


def make_optimizer(model: LlavaForConditionalGeneration, options: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only, a lower rate for the tower."""
    tower = {id(p) for p in model.model.vision_tower.parameters()}
    groups = []
    for in_tower, is_matrix in itertools.product((False, True), repeat=2):
        chosen = [p for p in model.parameters() if (id(p) in tower) == in_tower and (p.ndim > 1) == is_matrix]
        scale, decay = options.tower_rate if in_tower else 1.0, options.weight_decay if is_matrix else 0.0
        groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return torch.optim.AdamW(groups, lr=options.peak_rate, betas=(0.9, 0.98), fused=True)


def save_weights(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """The weights rounded to float16; the configuration says float32, so that they load as such."""
    named = {
        name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"
    }  # tied to the embeddings
    kept = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in named.items()}
    model.save_pretrained(folder, state_dict=kept)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")


def read_options() -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--tower", type=Path, help="weights of stage one")
    parser.add_argument("--resume", type=Path, help="folder of a model to train on")
    parser.add_argument("--tokenizer", type=Path, help="folder with a tokenizer to use instead of training one")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="lean")
    parser.add_argument("--rows", type=int, default=4000, help="rows drawn at a time")
    parser.add_argument("--passes", type=int, default=1, help="how often each row is used before new ones are drawn")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--frozen-share", type=float, default=0.6, help="share of the time in which the tower rests")
    parser.add_argument("--tower-rate", type=float, default=0.3, help="the tower's learning rate over the others'")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--peak-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warmup", type=float, default=0.03)
    parser.add_argument("--dev-rows", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--attention", default="eager", help="eager is the faster one on CPUs, sdpa on GPUs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tell-every-s", type=float, default=60.0)
    parser.add_argument("--save-every-s", type=float, default=600.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()

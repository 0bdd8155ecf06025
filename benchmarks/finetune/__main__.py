"""Finetune the embedded model on what each way of selecting keeps, and measure exact match on the test set.

    delta-attnmask demo --out demo-run
    python -m benchmarks.finetune --demo demo-run --out benchmarks/finetune/results.csv

A plain loop: AdamW, cosine, the loss on answer tokens only, the same number of epochs for everything (so the full pool
takes five times the steps). Each finished training is one line of the CSV; started again, finished ones are skipped.
Nothing is tuned: learning rate, epochs and batch are the same for every method and were fixed beforehand.
"""

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from delta_attnmask.derived import derive, derived_names
from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import EncodedSample, make_encoder
from delta_attnmask.modeling.load import LoadedModel, load_model
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import Candidates
from delta_attnmask.selecting.rules import make_rule

KEEP = 0.2
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """The scored pool: its table, the paper's delta of the same rows, and which rows have a planted defect."""

    scores: pa.Table
    paper: NDArray[np.float64]
    form: str
    is_planted: NDArray[np.bool_]

    @property
    def n_keep(self) -> int:
        return round(KEEP * len(self.scores))

    def column(self, name: str) -> NDArray[np.float64]:
        def stored(column: str) -> NDArray[np.float64]:
            return np.asarray(self.scores[column].to_numpy(), dtype=np.float64)

        return derive(name, stored) if name in derived_names() else stored(name)


def select(pool: Pool, method: str, seed: int) -> Rows:
    """The positions in the pool that a method keeps; random and trusted methods depend on the seed.

    method: a control's name, `SCORE/top`, `SCORE/COLUMNS` for a quota, or `SCORE/RULE-by-COLUMNS`.
    """
    rng = np.random.default_rng(seed)
    everything = np.arange(len(pool.scores))
    if method in ("full", "none"):
        return everything if method == "full" else everything[:0]
    if method == "random":
        return rng.permutation(everything)[: pool.n_keep]
    if method == "oracle":
        return rng.permutation(everything[~pool.is_planted])[: pool.n_keep]
    score, _, rule = method.partition("/")
    values = {"paper": pool.paper, "chosen": pool.column(pool.form)}.get(score)
    candidates = Candidates(pool.column(score) if values is None else values, pool.scores, everything)
    name, _, by = rule.partition("-by-") if "-by-" in rule else ("quota" if rule != "top" else "top", "", rule)
    columns = {"top": (), "source": ("source",), "source-answer": ("source", "answer_type")}[by]
    seeded = {"seed": seed} if name == "trusted" else {}
    made = make_rule(name, {"quota_by": columns, **seeded} if columns else seeded)
    return made.choose(candidates, pool.n_keep).positions


def read_pool(demo: Path) -> Pool:
    run = RunFolder.open(demo / "run")
    scores = run.read_scores()
    scores = scores.filter(pa.compute.equal(scores["status"], "ok"))
    shards = [pq.read_table(run.unit_path(unit, "sweep"), columns=["row", "delta"]) for unit in range(run.n_units)]
    sweep = pa.concat_tables(shards)
    paper = dict(zip(sweep["row"].to_pylist(), sweep["delta"].to_pylist(), strict=True))
    rows = scores["row"].to_pylist()
    defects = {int(row) for row in json.loads((demo / "data/defects.json").read_text())}
    return Pool(
        scores,
        np.array([paper[row] for row in rows]),
        run.manifest.settings["form"],
        np.array([row in defects for row in rows]),
    )


def encode(loaded: LoadedModel, dataset: FileRows) -> tuple[list[EncodedSample], list[str]]:
    """Every row of a data set, encoded; and its source."""
    encoder = make_encoder(loaded)
    records = list(dataset)
    samples = [encoder.encode(record, [dataset.load_image(i) for i in record.images]) for record in records]
    return samples, [record.source for record in records]


def batches(samples: Sequence[EncodedSample], size: int, rng: np.random.Generator) -> Iterator[list[EncodedSample]]:
    """One epoch: rows of similar length and the same inputs together, batches in random order."""
    order = sorted(
        rng.permutation(len(samples)).tolist(), key=lambda i: (len(samples[i].inputs), samples[i].n_tokens // 16)
    )
    groups: list[list[EncodedSample]] = []
    for index in order:
        sample = samples[index]
        if not groups or len(groups[-1]) == size or groups[-1][0].inputs.keys() != sample.inputs.keys():
            groups.append([])
        groups[-1].append(sample)
    for group in rng.permutation(len(groups)).tolist():
        yield groups[group]


def train(model: nn.Module, samples: Sequence[EncodedSample], options: argparse.Namespace, seed: int) -> int:
    """Finetune in place; returns the number of steps."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0.01, betas=(0.9, 0.98))
    plan = [batch for _ in range(options.epochs) for batch in batches(samples, options.batch, rng)]
    model.train()
    for step, group in enumerate(plan):
        for part in optimizer.param_groups:
            part["lr"] = options.lr * min(1, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / len(plan)))
        batch = collate(group, 0).to(device)
        logits = model(**batch.inputs, use_cache=False).logits[:, :-1]
        is_answer = batch.labels[:, 1:] != -100
        functional.cross_entropy(logits[is_answer].float(), batch.labels[:, 1:][is_answer]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return len(plan)


@torch.no_grad()
def exact_match(model: nn.Module, samples: Sequence[EncodedSample], size: int = 64) -> list[bool]:
    """For each sample whether greedy decoding would give every answer exactly.

    Greedy decoding gives the reference exactly if and only if every reference token is the likeliest one after the
    reference's own start, so one forward tells.
    """
    model.eval()
    device = next(model.parameters()).device
    right: dict[int, bool] = {}
    for group in batches(samples, size, np.random.default_rng(0)):
        batch = collate(group, 0).to(device)
        guesses = model(**batch.inputs, use_cache=False).logits[:, :-1].argmax(-1)
        targets = batch.labels[:, 1:]
        wrong = ((guesses != targets) & (targets != -100)).any(-1).tolist()
        right |= {row: not is_wrong for row, is_wrong in zip(batch.rows, wrong, strict=True)}
    return [right[sample.row] for sample in samples]


def accuracies(is_right: Sequence[bool], sources: Sequence[str]) -> dict[str, float]:
    found = {
        name: float(np.mean([r for r, s in zip(is_right, sources, strict=True) if s == name]))
        for name in sorted(set(sources))
    }
    return {"mean": float(np.mean(list(found.values()))), **found}


def main() -> None:
    options = read_options()
    torch.set_num_threads(options.threads)
    pool = read_pool(options.demo)
    home = options.demo / "data"
    loaded = load_model(str(home / "model"), device=options.device, dtype="float32")
    rows, _ = encode(loaded, FileRows(home / "pool.json", home / "images"))
    test, sources = encode(loaded, FileRows(home / "test.json", home / "images"))
    by_row = {sample.row: sample for sample in rows}
    position_to_row = pool.scores["row"].to_pylist()
    start = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    done = finished(options.out)
    for seed in range(options.seeds):
        for method in options.methods:
            if (method, str(seed)) in done:
                continue
            loaded.model.load_state_dict(start)
            picks = select(pool, method, seed)
            began = time.perf_counter()
            n_steps = (
                0
                if method == "none"
                else train(loaded.model, [by_row[position_to_row[i]] for i in picks], options, seed)
            )
            result = {
                "method": method,
                "seed": seed,
                "n_rows": len(picks),
                "n_steps": n_steps,
                "defects": round(float(pool.is_planted[picks].sum()) / max(1, len(picks)), 4),
                "seconds": round(time.perf_counter() - began, 1),
                **{
                    f"em_{name}": round(value, 4)
                    for name, value in accuracies(exact_match(loaded.model, test), sources).items()
                },
            }
            append(options.out, result)
            print(json.dumps(result), flush=True)


def finished(path: Path) -> set[tuple[str, str]]:
    if not path.exists():
        return set()
    with path.open() as file:
        return {(line["method"], line["seed"]) for line in csv.DictReader(file)}


def append(path: Path, result: dict[str, object]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(result))
        if is_new:
            writer.writeheader()
        writer.writerow(result)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo-run"), help="folder of `delta-attnmask demo`")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/finetune/results.csv"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[
            "random",
            "oracle",
            "chosen/source-answer",
            "chosen/source",
            "chosen/top",
            "paper/top",
            "low_loss/source-answer",
            "low_loss/top",
            "full",
        ],
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""The trainings of an evidence run, and how processes share them; each finished one is a line of the CSV."""

from __future__ import annotations

import csv
import fcntl
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.suite.bases import load
from benchmarks.suite.cached import exact_match

from .methods import RIVALS, ScoredPool, read_pool
from .training import AUGMENTATIONS, Recipe, Split, accuracies, finetune, read_split
from .workplace import Workplace

MAIN = ("random", "oracle", "chosen/select", "low_loss/quota")
AT_BUDGETS = (*MAIN, "chosen/top", "paper/top", "low_loss/top")  # at every budget
TRANSFERRED = (*MAIN, "paper/top", "own/select")  # "own": selected with the other model itself
CORE = (*MAIN, "chosen/top", "paper/top", "paper/quota", "low_loss/top", "random_tokens/quota")
VARIANTS = ("chosen/source", "chosen/source-answer", "relative/quota", "random_tokens/top", "diversity")
_RIVALS = (f"{rival}/{rule}" for rule in ("quota", "top") for rival in RIVALS)
METHODS = tuple(dict.fromkeys((*CORE, *VARIANTS, *_RIVALS)))
GROUPS = ("core", "augmentation", "methods", "transfer")


@dataclass(frozen=True)
class Job:
    """One training. accounting: "epochs" (the recipe's), or "steps" (those of 20 % of the pool)."""

    group: str
    method: str
    budget: float
    seed: int
    accounting: str = "epochs"

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(str(getattr(self, field.name)) for field in fields(self))


def plan_jobs(groups: Sequence[str], seeds: int, budgets: Sequence[float]) -> list[Job]:
    """All trainings, in an order that leaves a run which is cut short with the questions that matter most.

    First the core methods over all seeds, then augmentation, the other methods, the other budgets, the other base.
    """
    jobs: list[Job] = []
    others = [budget for budget in budgets if budget != 0.2]
    if "core" in groups:
        jobs += [Job("methods", "none", 0.0, 0)]
        for seed in range(seeds):
            jobs += [Job("methods", name, 0.2, seed) for name in CORE] + [Job("methods", "full", 1.0, seed)]
    if "augmentation" in groups:
        jobs += [Job("augmentation", name, 0.2, seed) for seed in range(seeds) for name in AUGMENTATIONS]
    if "methods" in groups:
        for seed in range(seeds):
            jobs += [Job("methods", "full", 1.0, seed, "steps")]
            jobs += [Job("methods", name, 0.2, seed) for name in METHODS if name not in CORE]
        for seed in range(seeds):
            jobs += [Job("methods", name, budget, seed) for budget in others for name in AT_BUDGETS]
    if "transfer" in groups:
        jobs += [Job("transfer", "none", 0.0, 0)]
        jobs += [Job("transfer", name, 0.2, seed) for seed in range(seeds) for name in TRANSFERRED]
        jobs += [Job("transfer", "full", 1.0, seed) for seed in range(seeds)]
    if "methods" in groups:
        for seed in range(seeds):
            jobs += [Job("methods", name, budget, seed, "steps") for budget in others for name in MAIN]
    return jobs


@dataclass(frozen=True)
class Worker:
    """What a process holds: the pool's scores, and a base with its rows for each group."""

    pool: ScoredPool
    model: torch.nn.Module
    start: dict[str, torch.Tensor]
    splits: dict[str, Split]
    recipe: Recipe

    def run(self, job: Job, split: str = "test") -> dict[str, object]:
        """Train, measure, and tell."""
        method = "chosen/select" if job.group == "augmentation" else job.method
        picks = [] if method == "none" else self.pool.pick(method, job.budget, job.seed).tolist()
        pool = self.splits["pool"]
        self.model.load_state_dict(self.start)
        told: dict[str, object] = {"n_rows": len(picks), "n_steps": 0, "seconds": 0.0}
        if picks:
            n_20 = self.recipe.epochs * -(-round(0.2 * len(self.pool)) // self.recipe.batch)
            trained = finetune(
                self.model, pool.rows.take(picks), self.recipe, job.seed,
                n_steps=n_20 if job.accounting == "steps" or job.group == "augmentation" else None,
                augmentation=job.method if job.group == "augmentation" else "", mask=self.pool.mask,
            )  # fmt: skip
            is_defect = self.pool.kinds[picks] != ""
            told |= {
                "n_steps": trained.n_steps, "seconds": round(trained.seconds, 2),
                "tower_s": round(pool.tower_s * trained.n_steps * self.recipe.batch, 2),  # if it weren't cached
                "defects": round(float(is_defect.mean()), 4),
                "distortion": round(self.pool.mix_distortion(picks), 4),
            }  # fmt: skip
        is_right = exact_match(self.model, self.splits[split].rows)
        found = accuracies(is_right, self.splits[split].sources)
        told |= {f"em_{name}": round(value, 4) for name, value in found.items()}
        if split == "test" and "shift" in self.splits:
            told["em_shift"] = round(float(exact_match(self.model, self.splits["shift"].rows).mean()), 4)
        return asdict(job) | told | {"right": np.packbits(is_right).tobytes().hex()}


def make_worker(
    place: Workplace, base: Path, recipe: Recipe, device: str, names: Sequence[str], pool: ScoredPool
) -> Worker:
    """Load a base and the splits as it sees them."""
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    model, tokenizer = load(base, device)
    there = [name for name in names if (place.suite / f"{name}.json").exists()]
    splits = {name: read_split(model, tokenizer, place.suite, name) for name in there}
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Worker(pool, model, start, splits, recipe)


_workers: dict[Path, Worker] = {}  # of this process


def run_job(place: Workplace, recipe: Recipe, device: str, job: Job) -> dict[str, object]:
    """One job in this process, with the base of its group."""
    base = place.other if job.group == "transfer" and place.other else place.base
    if base not in _workers:
        _workers.clear()  # a GPU or a small machine holds one
        _workers[base] = make_worker(place, base, recipe, device, ("pool", "test", "shift"), read_pool(place))
    return _workers[base].run(job)


def run_all(place: Workplace, jobs: Sequence[Job], recipe: Recipe, device: str, processes: int) -> None:
    """Run what the CSV lacks; each finished training is written at once."""
    done = finished(place.results)
    to_do = sorted((job for job in jobs if job.key not in done), key=lambda job: job.group == "transfer")
    print(f"{len(done)} trainings are done, {len(to_do)} to do", flush=True)
    if not to_do:
        return
    work = partial(run_job, place, recipe, device)
    for number, result in enumerate(_map(work, to_do, processes), 1):
        append(place.results, result)
        print(f"{number}/{len(to_do)} {json.dumps(result)}", flush=True)


def _map(work: partial[dict[str, object]], jobs: Sequence[Job], processes: int) -> Iterator[dict[str, object]]:
    if processes == 1:
        yield from map(work, jobs)
        return
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(work, jobs, chunksize=1)


def finished(path: Path) -> set[tuple[str, ...]]:
    """Keys of the jobs that the CSV holds."""
    return {tuple(line[field.name] for field in fields(Job)) for line in read_lines(path)}


def read_lines(path: Path) -> list[dict[str, str]]:
    """The CSV's lines; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, result: dict[str, object]) -> None:
    """Write one line, rewriting the file since a column may be new; commands that share the file take turns."""
    with path.with_suffix(".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        lines: list[dict[str, object]] = [*read_lines(path), result]
        names = list(dict.fromkeys(name for line in sorted(lines, key=len, reverse=True) for name in line))
        partial_file = path.with_suffix(".part")
        with partial_file.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(lines)
        partial_file.replace(path)

"""The trainings of an evidence run, and how processes share them; each finished one is a line of the CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.suite.bases import load
from benchmarks.suite.cached import exact_match

from .methods import Rows, ScoredPool, read_pool
from .scoring import RIVALS, ROUNDS
from .training import AUGMENTATIONS, Recipe, Split, accuracies, finetune, read_split
from .workplace import Workplace, taking_turns

RULES = ("quota", "trusted", "quota-mix", "trusted-mix", "top")
CORE = ("random", "oracle", "low_loss/quota", "judge/quota", "judge/trusted", "select")
OTHERS = (
    "delta/quota", "judge/quota-mix", "judge/trusted-mix", "delta/quota-mix", "delta/trusted-mix", "low_loss/quota-mix",
    "judge_with_delta/quota", "old/quota", "paper/top", "low_loss/trusted", "delta/trusted",
    "low_loss/top", "judge/top", "delta/top", *(f"{rival}/quota" for rival in RIVALS),
)  # fmt: skip
BUDGETS = (0.1, 0.4)  # beside 20 %
GROUPS = ("core", *ROUNDS, "methods", "budgets", "augmentation")


def core_of_rounds(n: int) -> tuple[str, ...]:
    """The methods of so many rounds that matter most."""
    return tuple(f"rounds{n}_{name}" for name in ("chosen/quota", "chosen/trusted", "delta/quota", "low_loss/quota"))


def all_of_rounds(n: int) -> tuple[str, ...]:
    scores = [f"rounds{n}_{name}" for name in ("chosen", "judge", "delta", "low_loss")]
    return tuple(f"{score}/{rule}" for score in scores for rule in RULES)


METHODS = (*CORE, *OTHERS, *(name for n in ROUNDS.values() for name in all_of_rounds(n)))


@dataclass(frozen=True)
class Job:
    """One training. accounting: "epochs" (the recipe's), or "steps" (those of 20 % of the pool).

    method: see `methods`; "select+NAME" trains on what `select` keeps under an augmentation.
    """

    base: str
    pool: str
    method: str
    budget: float = 0.2
    seed: int = 0
    accounting: str = "epochs"

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(str(getattr(self, field.name)) for field in fields(self))


def plan_jobs(base: str, pool: str, groups: Sequence[str], seeds: int) -> list[Job]:
    """All trainings, in an order that leaves a run which is cut short with the questions that matter most.

    First the core methods over all seeds, then the other methods, other budgets, augmentation.
    """
    job = partial(Job, base, pool)
    rounds = [n for group, n in ROUNDS.items() if group in groups]
    core = [*(CORE if "core" in groups else ()), *(name for n in rounds for name in core_of_rounds(n))]
    others = [*(OTHERS if "methods" in groups else ())]
    others += [name for n in rounds for name in all_of_rounds(n) if "methods" in groups and name not in core]
    jobs = [job("none", 0.0)] if "core" in groups else []
    for seed in range(seeds):
        jobs += [job(name, 0.2, seed) for name in core]
        jobs += [job("full", 1.0, seed, "steps")] if "core" in groups else []
    for seed in range(seeds):
        jobs += [job(name, 0.2, seed) for name in others]
        jobs += [job("full", 1.0, seed)] if "methods" in groups else []
    if "budgets" in groups:
        names = dict.fromkeys([*CORE, *core])
        by_accounting = [(accounting, seed) for accounting in ("epochs", "steps") for seed in range(seeds)]
        jobs += [job(name, at, seed, how) for how, seed in by_accounting for at in BUDGETS for name in names]
    if "augmentation" in groups:
        jobs += [job(f"select+{name}", 0.2, seed, "steps") for seed in range(seeds) for name in AUGMENTATIONS]
    return jobs


@dataclass(frozen=True)
class Worker:
    """What a process holds: the pool's scores, and the base with its rows."""

    pool: ScoredPool
    model: torch.nn.Module
    start: dict[str, torch.Tensor]
    splits: dict[str, Split]
    recipe: Recipe

    def run(self, job: Job, split: str = "test") -> dict[str, object]:
        """Train, measure, and describe; what was trained on the same rows already isn't trained again."""
        method, _, augmentation = job.method.partition("+")
        picks = self.pool.pick(method, job.budget, job.seed)
        n_20 = self.recipe.epochs * -(-round(0.2 * len(self.pool)) // self.recipe.batch)
        n_steps = n_20 if job.accounting == "steps" else None
        identity = repr((job.base, job.pool, split, job.seed, n_steps, augmentation)).encode()
        facts = {"n_rows": len(picks), **self.pool.describe(method, picks)}
        facts["trained"] = blake2b(picks.tobytes(), key=blake2b(identity).digest(), digest_size=8).hexdigest()
        twin = next((one for one in read_lines(self.pool.place.csv) if one["trained"] == facts["trained"]), None)
        measured = self._measure(picks, split, job.seed, n_steps, augmentation) if twin is None else outcome(twin)
        return asdict(job) | facts | measured

    def _measure(self, picks: Rows, split: str, seed: int, n_steps: int | None, augmentation: str) -> dict[str, object]:
        """right: whether each row of the split was answered, by source and then in the split's order."""
        found: dict[str, object] = {"n_steps": 0, "seconds": 0.0}
        self.model.load_state_dict(self.start)
        if len(picks):
            pool = self.splits["pool"]
            mask = self.pool.mask if augmentation else None
            rows = pool.rows.take(picks.tolist())
            trained = finetune(
                self.model, rows, self.recipe, seed, n_steps=n_steps, augmentation=augmentation, mask=mask
            )
            found = {"n_steps": trained.n_steps, "seconds": round(trained.seconds, 2)}
            found["tower_s"] = round(pool.tower_s * trained.n_steps * self.recipe.batch, 2)  # if it weren't cached
        is_right, sources = exact_match(self.model, self.splits[split].rows), self.splits[split].sources
        found |= {f"em_{name}": round(value, 4) for name, value in accuracies(is_right, sources).items()}
        if split == "test" and "shift" in self.splits:
            found["em_shift"] = round(float(exact_match(self.model, self.splits["shift"].rows).mean()), 4)
        by_source = is_right[np.argsort(sources, kind="stable")]
        return found | {"right": np.packbits(by_source).tobytes().hex()}


def outcome(line: dict[str, str]) -> dict[str, object]:
    """What a training came to, from its line."""
    return {
        name: line[name] for name in line if name in ("n_steps", "seconds", "tower_s", "right") or name[:3] == "em_"
    }


def make_worker(place: Workplace, recipe: Recipe, device: str, names: Sequence[str], pool: ScoredPool) -> Worker:
    """Load the base and the splits as it sees them."""
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    model, tokenizer = load(place.base, device)
    there = [name for name in names if (place.suite / f"{name}.json").exists()]
    splits = {name: read_split(model, tokenizer, place.suite, name) for name in there}
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return Worker(pool, model, start, splits, recipe)


_workers: list[Worker] = []  # of this process


def run_job(place: Workplace, recipe: Recipe, device: str, job: Job) -> dict[str, object]:
    """One job in this process."""
    if not _workers:
        _workers.append(make_worker(place, recipe, device, ("pool", "test", "shift"), read_pool(place)))
    return _workers[0].run(job)


def run_all(place: Workplace, jobs: Sequence[Job], recipe: Recipe, device: str, processes: int) -> None:
    """Run what the CSV lacks; each finished training is written at once."""
    done = finished(place.csv)
    to_do = [job for job in jobs if job.key not in done]
    print(f"{len(jobs) - len(to_do)} trainings are done, {len(to_do)} to do", flush=True)
    work = partial(run_job, place, recipe, device)
    for number, result in enumerate(_map(work, to_do, processes), 1):
        append(place.csv, result)
        print(f"{number}/{len(to_do)} {json.dumps(result)}", flush=True)


def _map(work: partial[dict[str, object]], jobs: Sequence[Job], processes: int) -> Iterator[dict[str, object]]:
    if processes == 1 or len(jobs) < 2:
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
    with taking_turns(path):
        lines: list[dict[str, object]] = [*read_lines(path), result]
        names = list(dict.fromkeys(name for line in sorted(lines, key=len, reverse=True) for name in line))
        partial_file = path.with_suffix(".new")
        with partial_file.open("w", newline="") as file:
            writer = csv.DictWriter(file, names, restval="")
            writer.writeheader()
            writer.writerows(lines)
        partial_file.replace(path)

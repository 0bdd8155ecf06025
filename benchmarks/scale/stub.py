"""A shard of a run whose numbers are drawn at random; in a module of its own, which a new process can import."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from delta_attnmask.errors import ReasonCode
from delta_attnmask.executing.engines import LocalPool
from delta_attnmask.manifest import WHOLE, Manifest, Shard
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import SampleScore, UnitReport

_ANSWER_TYPES = ("yes/no", "number", "word", "phrase", "sentence", "long")
_FAILED_EVERY = 1000


def score(path: Path, manifest: Manifest, shard: Shard) -> None:
    """What one process of the run does."""
    from delta_attnmask.scoring.jobs import score_units

    started = time.perf_counter(), time.process_time()
    pool: LocalPool[StubWorker, UnitReport] = LocalPool(StubWorker(path, manifest, shard))
    run = score_units(pool, path, shard)
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    n_units = sum(shard.owns(unit) for unit in range(run.n_units))
    print(f"         shard {shard.index}: {1e3 * wall / n_units:.2f} ms a unit, {1e3 * cpu / n_units:.2f} of CPU")


@dataclass
class StubWorker:
    """Draws the numbers that a model would give, always the same for a unit."""

    path: Path
    manifest: Manifest
    shard: Shard = WHOLE

    def run(self, units: Iterable[int]) -> Iterator[UnitReport]:
        for unit in units:
            scores = self.scores_of(unit)
            self._run.write_unit(unit, scores)
            yield UnitReport(unit, len(scores), sum(score.status == "failed" for score in scores))

    def scores_of(self, unit: int) -> list[SampleScore]:
        rows = self.manifest.rows_of(unit)
        rng = np.random.default_rng(unit)
        return [make_score(row, rng) for row in rows]

    @cached_property
    def _run(self) -> RunFolder:
        return RunFolder.join(self.path, self.manifest, self.shard)


def make_score(row: int, rng: np.random.Generator) -> SampleScore:
    question, source = int(rng.integers(3000)), min(int(rng.geometric(0.2)), 20)
    n_tokens, loss, delta = int(rng.integers(100, 2000)), float(rng.gamma(2, 1)), float(rng.normal(0.2, 0.3))
    is_failed = row % _FAILED_EVERY == 0
    return SampleScore(
        row=row,
        id=f"{row:012d}",
        key=rng.bytes(32).hex(),
        source=f"source-{source}",
        status="failed" if is_failed else "ok",
        reason="image 'a/b.jpg': No such file or directory" if is_failed else "",
        reason_code=ReasonCode.IMAGE_MISSING if is_failed else "",
        question=f"what is in picture number {question}",
        answer_type=_ANSWER_TYPES[question % len(_ANSWER_TYPES)],
        n_turns=1,
        n_images=1,
        n_tokens=n_tokens,
        n_image_tokens=n_tokens // 2,
        n_answer_tokens=n_tokens // 5,
        loss=None if is_failed else loss,
        masked_loss=None if is_failed else loss + delta,
        delta=None if is_failed else delta,
    )

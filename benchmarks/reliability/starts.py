"""What a process of the kill test does; in a module of its own, which a forked process can import."""

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scale.stub import StubWorker
from delta_attnmask import cli
from delta_attnmask.executing.actors import Cluster, ray_pool
from delta_attnmask.manifest import Manifest


def start(arguments: list[str]) -> None:
    """Run a command with its output thrown away; what it says on stderr stays."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    cli.main(arguments)


@dataclass(frozen=True)
class StubRecipe:
    """Makes a worker that draws its numbers and needs no torch, so that many starts don't take hours."""

    path: Path
    manifest: Manifest

    def __call__(self) -> StubWorker:
        return StubWorker(self.path, self.manifest)


def start_stub(path: Path, manifest: Manifest, address: str) -> None:
    """Score with two stub workers on a running cluster."""
    from delta_attnmask.scoring.jobs import score_units

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with ray_pool(StubRecipe(path, manifest), Cluster(2, 0, address)) as pool:
        score_units(pool, path)

"""Stage one: teaches the vision tower what each quarter of a patch belongs to.

The builder knows what it drew, so that every picture gives 256 labels instead of one answer: without this the tower
takes many times longer to start seeing through the language model's loss. The two heads are thrown away afterwards.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionModel

from .build import digest
from .clock import rate_at, tell
from .drawing import COLORS, Scene, region_numbers
from .modelfiles import PATCH, SHAPES, make_config, train_tokenizer
from .sample import SIDE, Picture
from .sources import SOURCES
from .sources.mixing import Split

CELL = PATCH // 2  # pixels; a patch has 2 x 2 cells
CELLS = SIDE // CELL
IGNORED = -100
SHARES = {"emoji": 0.4, "scene": 0.38, "chart": 0.12, "easyvqa": 0.1}


@dataclass(slots=True)
class Labels:
    """regions: (picture, cell row, cell column), IGNORED where mixed; grounds: (picture,), IGNORED without a name."""

    regions: torch.Tensor
    grounds: torch.Tensor


class CellHeads(nn.Module):
    """From a patch's state to its four cells' regions, and to the ground's colour."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.region = nn.Linear(hidden, 4 * (1 + len(region_numbers())))
        self.ground = nn.Linear(hidden, len(COLORS))

    def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(picture, patch, hidden) -> (picture, cell row, cell column, region), (picture, patch, ground)."""
        states = self.norm(states)
        side = SIDE // PATCH
        regions = self.region(states).view(len(states), side, side, 2, 2, -1).permute(0, 1, 3, 2, 4, 5)
        return regions.reshape(len(states), CELLS, CELLS, -1), self.ground(states)


def pictures(split: Split, seed: int, forbidden: frozenset[str], chunk: int = 64) -> Iterator[Picture]:
    """Pictures with regions for ever, in the shares above, shuffled by the chunk."""
    for number in range(1_000_000_000):
        rng = random.Random(f"pictures/{seed}/{split}/{number}")
        drawn = [
            p
            for source, share in SHARES.items()
            for row in SOURCES[source](rng, round(chunk * share), split)
            for p in row.pictures
        ]
        rng.shuffle(drawn)
        yield from (p for p in drawn if p.regions is not None and digest(p.pixels) not in forbidden)


def labels_of(drawn: list[Picture]) -> Labels:
    """The commonest region of every cell; cells that are only partly covered by it are left out."""
    regions = np.stack([_cell_labels(p.regions) for p in drawn if p.regions is not None])
    names = list(COLORS)
    grounds = [names.index(p.facts.ground) if isinstance(p.facts, Scene) else IGNORED for p in drawn]
    return Labels(torch.from_numpy(regions).long(), torch.tensor(grounds))


def _cell_labels(regions: NDArray[np.int16]) -> NDArray[np.int16]:
    cells = regions.reshape(CELLS, CELL, CELLS, CELL).swapaxes(1, 2).reshape(CELLS, CELLS, CELL * CELL)
    ordered = np.sort(cells, axis=-1)
    middle = ordered[..., CELL * CELL // 2]  # the median: the commonest one wherever one covers more than half
    share = (cells == middle[..., None]).mean(-1)
    return np.where(share >= 0.6, middle, IGNORED)


def tower_loss(
    tower: CLIPVisionModel, heads: CellHeads, pixels: torch.Tensor, labels: Labels
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss, and the share of right cells among those that show something."""
    with torch.autocast(pixels.device.type, torch.bfloat16):
        regions, grounds = heads(tower(pixels).last_hidden_state[:, 1:])
    known = labels.regions != IGNORED
    logits, wanted = regions[known].float(), labels.regions[known]
    shown = wanted > 0
    # Cells with something on them are a third of all, and worth more.
    loss = functional.cross_entropy(logits[shown], wanted[shown]) + 0.3 * functional.cross_entropy(
        logits[~shown], wanted[~shown]
    )
    each = labels.grounds[:, None].expand(grounds.shape[:2]).flatten()
    loss = loss + 0.2 * functional.cross_entropy(grounds.flatten(0, 1).float(), each, ignore_index=IGNORED)
    return loss, (logits[shown].argmax(-1) == wanted[shown]).float().mean()


def batch_of(stream: Iterator[Picture], size: int, device: str) -> tuple[torch.Tensor, Labels]:
    """The next pictures as normalised pixels with labels."""
    drawn = [next(stream) for _ in range(size)]
    pixels = torch.from_numpy(np.stack([p.pixels for p in drawn])).to(device)
    labels = labels_of(drawn)
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1), Labels(
        labels.regions.to(device), labels.grounds.to(device)
    )


def main() -> None:
    """Train the tower against the clock and save its weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file of the tower's weights")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="lean")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


def train(options: argparse.Namespace) -> None:
    """The loop; prints the running share of right cells."""
    from .train import shipped_digests

    torch.manual_seed(options.seed)
    config = make_config(SHAPES[options.shape], train_tokenizer()).vision_config
    config._attn_implementation = "eager"  # faster than the fused kernel on CPUs
    tower, heads = CLIPVisionModel(config).to(options.device), CellHeads(config.hidden_size).to(options.device)
    if options.resume:
        state = torch.load(options.resume)
        tower.load_state_dict(state["tower"])
        heads.load_state_dict(state["heads"])
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=options.peak_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=True)
    stream = pictures("train", options.seed, shipped_digests())
    started = told = time.perf_counter()
    step, mean_loss, mean_right = 0, 0.0, 0.0
    while (gone := (time.perf_counter() - started) / (60 * options.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(options.peak_rate, gone, warmup=0.03)
        loss, right = tower_loss(tower, heads, *batch_of(stream, options.batch, options.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        mean_loss += (loss.item() - mean_loss) * max(0.01, 1 / step)
        mean_right += (right.item() - mean_right) * max(0.01, 1 / step)
        if time.perf_counter() - told > 60:
            told = time.perf_counter()
            tell(told - started, step, {"loss": mean_loss, "right cells": mean_right, "pictures": step * options.batch})
            torch.save({"tower": tower.state_dict(), "heads": heads.state_dict(), "steps": step}, options.out)
    torch.save({"tower": tower.state_dict(), "heads": heads.state_dict(), "steps": step}, options.out)


if __name__ == "__main__":
    main()

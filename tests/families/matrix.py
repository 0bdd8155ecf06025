"""One cell of the matrix: the tool against the naive reference, on one family, padding and block."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from delta_attnmask import MaskSettings, score_batch
from tests.families.family import IMAGE, Family, Padding
from tests.reference import NaiveScore, naive_score


@dataclass(frozen=True)
class Cell:
    """What is tried. block: as asked for; the family says whether another is masked instead."""

    padding: Padding
    settings: MaskSettings

    def __str__(self) -> str:
        return f"{self.padding} {self.settings.block}"


@dataclass(frozen=True)
class Difference:
    """Largest absolute difference to the reference in nats; of the saliency relative to its largest value."""

    loss: float
    delta: float
    saliency: float
    same_choice: bool


def cells(family: Family) -> Iterator[Cell]:
    """Both blocks under each padding; the second block with other settings than the first."""
    plain, other = (MaskSettings(block=block) for block in family.blocks)
    tokens = "image" if family.kind == "vlm" else "prompt"
    other = replace(other, queries="answer", tokens=tokens, fraction=0.4, replacement="mean")
    for padding in family.paddings:
        yield Cell(padding, plain)
        yield Cell(padding, other)


def reference(family: Family, model: nn.Module, cell: Cell) -> NaiveScore:
    inputs, labels = family.inputs(cell.padding)
    block = family.moved.get(cell.settings.block, cell.settings.block)
    settings = replace(cell.settings, block=block)
    return naive_score(model, inputs, labels, settings, layers=family.layers, eager=family.eager, image_token=IMAGE)


def difference(family: Family, model: nn.Module, cell: Cell) -> Difference:
    inputs, labels = family.inputs(cell.padding)
    expected = reference(family, model, cell)
    got = score_batch(model, inputs, labels, cell.settings)
    return Difference(
        loss=_largest(got.loss - expected.loss),
        delta=_largest(got.delta - expected.delta),
        saliency=_largest(got.saliency - expected.saliency) / _largest(expected.saliency),
        same_choice=bool((got.is_masked == expected.is_masked).all()),
    )


def _largest(values: Tensor) -> float:
    return float(values.abs().max())

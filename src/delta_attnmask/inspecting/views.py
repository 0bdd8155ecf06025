"""A picture's cells by the pass over the picture that they belong to."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from delta_attnmask.inspecting.cells import Place
from delta_attnmask.inspecting.inspection import Box, Cell, ImageToken


def split_views(
    places: Sequence[Place | None], tokens: Sequence[ImageToken], picture: int
) -> tuple[tuple[Cell, ...], ...]:
    """The cells of one picture, in reading order; a new view begins where a token shows what its view shows already.

    So tiles make one view together, and the whole picture beside them another. places: none where they are unknown.
    """
    cells = [
        Cell(token.number, place.box, token.saliency, token.is_masked)
        for place, token in zip(places, tokens, strict=bool(places))
        if place is not None and place.picture == picture
    ]
    starts = _starts([cell.box for cell in cells])
    return tuple(tuple(cells[start:stop]) for start, stop in pairwise([*starts, len(cells)]))


def _starts(boxes: Sequence[Box]) -> list[int]:
    """The index of the first box of each view."""
    edges = np.array(boxes).reshape(-1, 4)
    starts = [0] if boxes else []
    for index, box in enumerate(boxes):
        x, y = box.centre
        before = edges[starts[-1] : index]
        is_shown = (before[:, 0] < x) & (x < before[:, 2]) & (before[:, 1] < y) & (y < before[:, 3])
        if is_shown.any():
            starts.append(index)
    return starts

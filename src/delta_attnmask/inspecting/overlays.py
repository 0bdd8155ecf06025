"""Attention as rectangles over a picture, for the templates. No torch here."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from delta_attnmask.inspecting.inspection import Box, Cell, ImageToken, Picture
from delta_attnmask.reporting.page import embed_image
from delta_attnmask.reporting.words import write_percent

_WIDTH = 1000  # of a picture, in the units of its overlay
_EDGES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)  # times the average image token: the same colours on every page
_SIDE, _BYTES = 512, 40_000  # of a picture in the page

View = tuple[Cell, ...]


def show_picture(picture: Picture, key: str, name: str) -> dict[str, Any]:
    """The picture itself. key: an id that no other picture of the page has."""
    uri = embed_image(picture.image, max_side=_SIDE, max_bytes=_BYTES).uri
    return {"key": key, "name": name, "uri": uri, "width": _WIDTH, "height": round(_height(picture), 1)}


def title_views(views: Sequence[View]) -> list[str]:
    """What each view shows: models that cut a picture into tiles see it closely, and as a whole."""
    if len(views) < 2:
        return ["Attention"] * len(views)
    sizes = [sum(cell.box.area for cell in cells) / len(cells) for cells in views]
    names = {max(sizes): "whole picture"} | ({min(sizes): "close-up tiles"} if len(sizes) == 2 else {})
    return [f"Attention, {names.get(size, f'view {index}')}" for index, size in enumerate(sizes, start=1)]


@dataclass(frozen=True)
class Heat:
    """What a token's colour is measured against.

    average: attention that the row's average image token receives. total: that all its tokens receive.
    """

    average: float
    total: float

    @classmethod
    def of(cls, tokens: Sequence[ImageToken], total: float) -> Self:
        return cls(sum(token.saliency for token in tokens) / max(1, len(tokens)) or 1.0, total or 1.0)

    def show(self, cells: View, title: str, picture: Picture) -> dict[str, Any]:
        """One view over its picture."""
        share = sum(cell.saliency for cell in cells) / self.total
        n_masked = sum(cell.is_masked for cell in cells)
        return {
            "title": title,
            "caption": f"{write_percent(share)} of all attention; {n_masked} of {len(cells)} tokens masked",
            "cells": [self._show_cell(cell, _height(picture)) for cell in cells],
            "outline": _outline([_scaled(cell.box, _height(picture)) for cell in cells if cell.is_masked]),
        }

    def _show_cell(self, cell: Cell, height: float) -> dict[str, Any]:
        times = cell.saliency / self.average
        masked = ", masked" if cell.is_masked else ""
        box = _scaled(cell.box, height)
        return {
            "x": box.left,
            "y": box.top,
            "width": round(box.right - box.left, 1),
            "height": round(box.bottom - box.top, 1),
            "level": sum(times >= edge for edge in _EDGES),
            "tip": f"image token {cell.number}: {times:.2f} times the average{masked}",
        }


def _height(picture: Picture) -> float:
    return float(_WIDTH * picture.image.height / picture.image.width)


def _scaled(box: Box, height: float) -> Box:
    """In the units of the overlay."""
    return Box(*(round(value * size, 1) for value, size in zip(box, (_WIDTH, height) * 2, strict=True)))


def _outline(boxes: Sequence[Box]) -> str:
    """The rim of the area that boxes cover together, as an SVG path: every side that no two of them share."""
    sides = Counter(side for box in boxes for side in _sides(box))
    return "".join(f"M{x0:g} {y0:g}L{x1:g} {y1:g}" for (x0, y0, x1, y1), n in sides.items() if n == 1)


def _sides(box: Box) -> tuple[tuple[float, float, float, float], ...]:
    left, top, right, bottom = box
    return (
        (left, top, right, top),
        (left, bottom, right, bottom),
        (left, top, left, bottom),
        (right, top, right, bottom),
    )

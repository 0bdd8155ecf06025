"""Attention as rectangles over a picture, for the templates. No torch here."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from delta_attnmask.inspecting.inspection import Box, ImageToken, RowInspection
from delta_attnmask.reporting.page import embed_image
from delta_attnmask.reporting.words import write_percent

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDTH = 1000  # of a picture, in the units of its overlay
_EDGES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)  # times the average image token: the same colours on every page
_SIDE, _BYTES = 512, 40_000  # of a picture in the page


def show_picture(inspection: RowInspection, number: int) -> dict[str, Any]:
    """One picture of a row."""
    image = inspection.pictures[number]
    return {
        "key": f"picture-{inspection.row}-{number}",
        "name": f"Picture {number + 1}" if len(inspection.pictures) > 1 else "Picture",
        "uri": embed_image(image, max_side=_SIDE, max_bytes=_BYTES).uri,
        "width": _WIDTH,
        "height": round(_height(image), 1),
    }


def show_overlay(inspection: RowInspection, number: int) -> dict[str, Any] | None:
    """The attention over one picture of a row; None where its image tokens have no place on it."""
    tokens = [(token, token.box) for token in inspection.image_tokens if token.picture == number and token.box]
    if not tokens:
        return None
    height = _height(inspection.pictures[number])
    average = sum(token.saliency for token in inspection.image_tokens) / len(inspection.image_tokens) or 1.0
    share = sum(token.saliency for token, _ in tokens) / (inspection.saliency_total or 1.0)
    n_masked = sum(token.is_masked for token, _ in tokens)
    return {
        "caption": f"{write_percent(share)} of all attention; {n_masked} of {len(tokens)} tokens masked",
        "cells": [_show_cell(token, _scaled(box, height), average) for token, box in tokens],
        "outline": _outline([_scaled(box, height) for token, box in tokens if token.is_masked]),
    }


def _show_cell(token: ImageToken, box: Box, average: float) -> dict[str, Any]:
    times = token.saliency / average
    masked = ", masked" if token.is_masked else ""
    return {
        "x": box.left,
        "y": box.top,
        "width": round(box.right - box.left, 1),
        "height": round(box.bottom - box.top, 1),
        "level": sum(times >= edge for edge in _EDGES),
        "tip": f"image token {token.number}: {times:.2f} times the average{masked}",
    }


def _height(image: "Image") -> float:
    return float(_WIDTH * image.height / image.width)


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

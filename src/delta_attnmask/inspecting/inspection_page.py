"""The page of inspected rows, one row as a fragment for other pages, and attention as an overlay. No torch here."""

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from markupsafe import Markup

from delta_attnmask.inspecting.inspection import Box, RowInspection
from delta_attnmask.reporting.page import embed_image, make_environment, render_page
from delta_attnmask.reporting.words import write_percent

STYLE = "inspection.css"
_MOST_ATTENDED = 20
_WIDTH = 1000  # of a picture, in the units of its overlay
_EDGES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0)  # times the average image token: the same colours on every page
_SIDE, _BYTES = 512, 40_000  # of a picture in the page


def render_inspections(inspections: Sequence[RowInspection], *, model: str, data: str) -> str:
    """The HTML page of some rows of one model, data set and setting."""
    rows = ", ".join(str(inspection.row) for inspection in inspections)
    return render_page(
        "inspect.html",
        title=f"Where the model looked: row{'s' if len(inspections) > 1 else ''} {rows}",
        styles=(STYLE,),
        views=[_view(inspection) for inspection in inspections],
        settings=inspections[0].settings,
        model=model,
        data=data,
    )


def render_fragment(inspection: RowInspection) -> Markup:
    """One row for the report's gallery; the page around it needs the style `STYLE`."""
    template: Any = make_environment().get_template("inspection.html").module
    return Markup(template.row(_view(inspection)))  # escaped by the template


def show_picture(inspection: RowInspection, number: int) -> dict[str, Any]:
    """One picture of a row."""
    image = inspection.pictures[number]
    return {
        "key": f"picture-{inspection.row}-{number}",
        "name": f"Picture {number + 1}" if len(inspection.pictures) > 1 else "Picture",
        "uri": embed_image(image, max_side=_SIDE, max_bytes=_BYTES).uri,
        "width": _WIDTH,
        "height": round(_WIDTH * image.height / image.width, 1),
    }


def show_overlay(inspection: RowInspection, number: int) -> dict[str, Any] | None:
    """The attention over one picture of a row; None where its image tokens have no place on it."""
    if not inspection.grids:
        return None
    image, saliency = inspection.pictures[number], inspection.image_saliency
    sides = (_WIDTH, _WIDTH * image.height / image.width) * 2
    boxes = [Box(*(round(x * side, 1) for x, side in zip(box, sides, strict=True))) for box in inspection.grids[number]]
    first = sum(map(len, inspection.grids[:number]))
    tokens = range(first, first + len(boxes))
    masked = [box for token, box in zip(tokens, boxes, strict=True) if inspection.image_is_masked[token]]
    average = sum(saliency) / len(saliency) or 1.0
    share = sum(saliency[token] for token in tokens) / (inspection.saliency_total or 1.0)
    return {
        "caption": f"{write_percent(share)} of all attention; {len(masked)} of {len(boxes)} tokens masked",
        "cells": [
            {
                "box": box,
                "level": sum(saliency[token] / average >= edge for edge in _EDGES),
                "tip": f"image token {token}: {saliency[token] / average:.2f} times the average"
                + (", masked" if inspection.image_is_masked[token] else ""),
            }
            for token, box in zip(tokens, boxes, strict=True)
        ],
        "outline": _outline(masked),
    }


def _outline(boxes: Sequence[Box]) -> str:
    """The rim of the area that boxes cover together, as an SVG path: every side that no two of them share."""
    sides = Counter(
        side
        for left, top, right, bottom in boxes
        for side in (
            (left, top, right, top),
            (left, bottom, right, bottom),
            (left, top, left, bottom),
            (right, top, right, bottom),
        )
    )
    return "".join(f"M{x0:g} {y0:g}L{x1:g} {y1:g}" for (x0, y0, x1, y1), n in sides.items() if n == 1)


def _view(inspection: RowInspection) -> dict[str, Any]:
    """What the template shows of a row; the most attended tokens as (visible text, saliency, is_masked)."""
    pictures = [
        show_picture(inspection, number) | {"overlay": show_overlay(inspection, number)}
        for number in range(len(inspection.pictures))
    ]
    texts = [
        (piece.text.replace("\n", "↵").replace(" ", "␣"), piece.saliency, piece.n_masked > 0)
        for piece in inspection.pieces
        if piece.role != "image"
    ]
    names = (f"image token {number}" for number in range(len(inspection.image_saliency)))
    images = zip(names, inspection.image_saliency, inspection.image_is_masked, strict=True)
    attended = sorted([*texts, *images], key=itemgetter(1), reverse=True)[:_MOST_ATTENDED]
    return {"row": inspection, "pictures": pictures, "most_attended": attended}

"""Pages of what was made up: inspected rows, and a comparison of two models, with hostile texts wherever one can be."""

from dataclasses import replace

import numpy as np
from PIL import Image

from delta_attnmask.inspecting.comparison import ModelAttention, compare
from delta_attnmask.inspecting.comparison_page import render_comparison
from delta_attnmask.inspecting.inspection import Box, ImageToken, Piece, RowInspection
from delta_attnmask.settings import MaskSettings
from tests.inspecting.test_comparison import model
from tests.reporting.runs import HOSTILE


def inspected(attention: ModelAttention, row: int) -> RowInspection:
    """One row of a model with a picture of four cells."""
    found = attention.rows[row]
    tokens = tuple(
        ImageToken(
            number,
            float(found.saliency[number]),
            bool(found.is_masked[number]),
            0,
            Box(place / 4, 0, (place + 1) / 4, 1),
        )
        for place, number in enumerate(np.flatnonzero(found.is_image).tolist())
    )
    return RowInspection(
        row=row,
        id=HOSTILE,
        source="",
        settings=MaskSettings.paper(),
        pieces=(Piece("text", HOSTILE, 4, 0, 1.0),),
        pictures=(Image.new("RGB", (40, 20), "teal"),),
        image_tokens=tokens,
        layout_problem=HOSTILE,
    )


def attention_page() -> str:
    base = replace(model(HOSTILE), failures={99: HOSTILE})
    tuned = model(HOSTILE, shift=-0.05, seed=5)
    samples = [(inspected(base, row), inspected(tuned, row)) for row in (1, 2)]
    return render_comparison(compare(base, tuned, "delta"), samples, settings=MaskSettings.paper(), data=HOSTILE)


def levels_picture(grey: int) -> tuple[Image.Image, tuple[ImageToken, ...]]:
    """A picture of one grey, and its row's tokens: nine on the picture, one of each colour of the legend."""
    times = [0.25, 0.6, 0.8, 1.2, 1.7, 2.4, 3.4, 6.0, 10.0] + [0.0] * 17  # 1 on average
    boxes = [Box(column / 3, line / 3, (column + 1) / 3, (line + 1) / 3) for line in range(3) for column in range(3)]
    tokens = [
        ImageToken(number, saliency, False, 0, box)
        for number, (saliency, box) in enumerate(zip(times, boxes, strict=False))
    ]
    others = [ImageToken(number, times[number], False) for number in range(9, len(times))]
    return Image.new("RGB", (60, 60), (grey, grey, grey)), (*tokens, *others)

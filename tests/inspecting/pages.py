"""Pages of what was made up: inspected rows, and a comparison of two models, with hostile texts wherever one can be."""

from dataclasses import replace

import numpy as np
from PIL import Image

from delta_attnmask.inspecting.attention_page import SideBySide, render_comparison
from delta_attnmask.inspecting.comparison import compare
from delta_attnmask.inspecting.inspection import Box, Cell, ImageToken, Picture
from delta_attnmask.inspecting.measured import ModelAttention, RowAttention
from delta_attnmask.settings import MaskSettings
from tests.inspecting.test_comparison import model
from tests.reporting.runs import HOSTILE


def side_by_side(base: ModelAttention, tuned: ModelAttention, row: int = 1) -> SideBySide:
    """One row with a picture of four cells under both models."""
    both = base.rows[row], tuned.rows[row]
    before, after = (Picture(HOSTILE, Image.new("RGB", (40, 20), "teal"), (_cells(found),)) for found in both)
    return SideBySide(row, HOSTILE, HOSTILE, ((before, after),), *both, problem=HOSTILE)


def _cells(found: RowAttention) -> tuple[Cell, ...]:
    numbers = np.flatnonzero(found.is_image).tolist()
    return tuple(
        Cell(
            number,
            Box(number / 4, 0, (number + 1) / 4, 1),
            float(found.saliency[number]),
            bool(found.is_masked[number]),
        )
        for number in numbers
    )


def attention_page() -> str:
    base = replace(model(HOSTILE), failures={99: HOSTILE})
    tuned = model(HOSTILE, shift=-0.05, seed=5)
    samples = [side_by_side(base, tuned, row) for row in (1, 2)]
    return render_comparison(compare(base, tuned, "delta"), samples, settings=MaskSettings.paper(), data=HOSTILE)


def levels_picture(grey: int) -> tuple[Picture, tuple[ImageToken, ...]]:
    """A picture of one grey under nine cells, one of each colour of the legend, and the tokens of its row."""
    times = [0.25, 0.6, 0.8, 1.2, 1.7, 2.4, 3.4, 6.0, 10.0] + [0.0] * 17  # 1 on average
    tokens = tuple(ImageToken(number, saliency, False) for number, saliency in enumerate(times))
    cells = tuple(
        Cell(token.number, Box(column / 3, line / 3, (column + 1) / 3, (line + 1) / 3), token.saliency, False)
        for token in tokens[:9]
        for line, column in [divmod(token.number, 3)]
    )
    return Picture("grey", Image.new("RGB", (60, 60), (grey, grey, grey)), (cells,)), tokens

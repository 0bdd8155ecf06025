"""Pages of what was made up: inspected rows, and a comparison of two models, with hostile texts wherever one can be."""

from PIL import Image

from delta_attnmask.inspecting.comparison import compare
from delta_attnmask.inspecting.comparison_page import render_comparison
from delta_attnmask.inspecting.inspection import Box, Piece, RowInspection
from delta_attnmask.settings import MaskSettings
from tests.inspecting.test_comparison import N_ROWS, model
from tests.reporting.runs import HOSTILE


def inspected(row: int) -> RowInspection:
    """A row with a picture of four cells, the first of which are the most attended."""
    return RowInspection(
        row=row,
        id=HOSTILE,
        source="",
        settings=MaskSettings.paper(),
        pieces=(Piece("text", HOSTILE, 4, 0, 1.0),),
        pictures=(Image.new("RGB", (40, 20), "teal"),),
        image_saliency=(0.9, 0.7, 0.2, 0.1),
        image_is_masked=(True, False, False, False),
        grids=([Box(place / 4, 0, (place + 1) / 4, 1) for place in range(4)],),
        layout_problem=HOSTILE,
    )


def attention_page() -> str:
    return render_comparison(
        compare(model(), model(shift=-0.05, seed=5), "delta"),
        [(inspected(row), inspected(row)) for row in (1, 2)],
        base=HOSTILE,
        tuned=HOSTILE,
        n_measured=N_ROWS + 1,
        settings=MaskSettings.paper(),
        data=HOSTILE,
    )


def levels_picture(grey: int) -> dict[str, object]:
    """A row's picture of one grey, and its tokens: nine on the picture, one of each colour of the legend."""
    times = (0.25, 0.6, 0.8, 1.2, 1.7, 2.4, 3.4, 6.0, 10.0, *[0.0] * 17)  # 1 on average
    boxes = [Box(column / 3, line / 3, (column + 1) / 3, (line + 1) / 3) for line in range(3) for column in range(3)]
    return {
        "pictures": (Image.new("RGB", (60, 60), (grey, grey, grey)),),
        "image_saliency": times,
        "image_is_masked": (False,) * len(times),
        "grids": (boxes,),
    }

"""The page stands alone, escapes what the data says, and shows what was found."""

import re

from PIL import Image

from delta_attnmask.inspecting.inspection import Box, Piece, RowInspection
from delta_attnmask.inspecting.inspection_page import render_fragment, render_inspections
from delta_attnmask.settings import MaskSettings

EVIL = "<script>alert(1)</script>"


def inspection(**changes: object) -> RowInspection:
    values = {
        "row": 7,
        "id": EVIL,
        "source": EVIL,
        "settings": MaskSettings.paper(),
        "loss": 1.0,
        "masked_loss": 3.5,
        "saliency_total": 8.0,
        "pieces": (
            Piece("special", "<|user|>", 1, 0, 1.0),
            Piece("image", "", 2, 1, 4.0),
            Piece("text", EVIL, 4, 0, 2.0),
            Piece("answer", EVIL, 2, 1, 1.0, loss=2.0, masked_loss=7.0),
        ),
        "pictures": (Image.new("RGB", (40, 20)),),
        "image_saliency": (3.0, 1.0),
        "image_is_masked": (True, False),
        "grids": ([Box(0.0, 0.0, 0.5, 1.0), Box(0.5, 0.0, 1.0, 1.0)],),
    }
    return RowInspection(**values | changes)  # type: ignore[arg-type]


def page(*inspections: RowInspection) -> str:
    return render_inspections(inspections, model=EVIL, data=EVIL)


def test_what_the_data_says_is_text() -> None:
    html = page(inspection())
    assert EVIL not in html
    assert html.count("&lt;script&gt;") >= 5
    assert EVIL not in render_fragment(inspection())


def test_nothing_comes_from_elsewhere() -> None:
    html = page(inspection(), inspection(row=8))
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert not re.search(r'\sstyle="|\son\w+="', html), "the page's policy refuses them"


def test_cells_are_drawn_where_they_lie() -> None:
    html = str(render_fragment(inspection()))
    assert (
        '<rect x="0.0" y="0.0" width="500.0" height="500.0" class="heat heat4"><title>image token 0: 1.50 times' in html
    )
    assert '<rect x="500.0" y="0.0" width="500.0" height="500.0" class="heat heat1">' in html
    rim = "M0 0L500 0M0 500L500 500M0 0L0 500M500 0L500 500"
    assert f'<path d="{rim}" class="hidden-cells"/>' in html


def test_nothing_is_neither_more_nor_less() -> None:
    html = str(render_fragment(inspection(masked_loss=0.999)))
    assert '<dd class="strong">0.00</dd>' in html


def test_masked_cells_that_touch_have_one_rim() -> None:
    html = str(render_fragment(inspection(image_is_masked=(True, True))))
    assert "M500 0L500 500" not in html, "the side that both share"
    assert "M0 0L0 500" in html


def test_answer_tokens_show_their_losses() -> None:
    html = str(render_fragment(inspection()))
    assert 'class="token answer up4 masked' in html
    assert 'data-tip="loss 2.00 → 7.00, Δ +5.00"' in html
    assert '<td class="number">+5.00</td>' in html


def test_an_unknown_layout_is_said_and_listed() -> None:
    html = str(render_fragment(inspection(grids=(), layout_problem="Model: it isn't a grid")))
    assert "No overlay is drawn, since Model: it isn&#39;t a grid" in html
    assert "<rect" not in html
    assert "image token 0" in html


def test_a_row_that_failed_says_why() -> None:
    html = page(RowInspection(row=3, id="", source="", settings=MaskSettings.paper(), reason="no answer"))
    assert "This row can't be inspected: no answer." in html

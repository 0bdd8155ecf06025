"""The page that compares two models' attention over the same rows: one table, and some rows side by side. No torch."""

from collections.abc import Sequence
from typing import Any

from delta_attnmask.inspecting.comparison import Comparison
from delta_attnmask.inspecting.inspection import RowInspection
from delta_attnmask.inspecting.inspection_page import STYLE, show_overlay, show_picture
from delta_attnmask.manifest import collect_versions
from delta_attnmask.reporting.page import render_page
from delta_attnmask.settings import MaskSettings

COLUMNS = ("measure", "blocks", "base", "tuned", "tuned − base", "95 % interval", "change")
_TITLES = {
    "entropy": "spread (entropy, nats)",
    "image": "on the image, %",
    "question": "on the question, %",
    "sink": "on sinks, %",
    "answer_to_image": "from the answer to the image, %",
}

Samples = Sequence[tuple[RowInspection, RowInspection]]


def render_comparison(
    found: Comparison, samples: Samples, *, base: str, tuned: str, n_measured: int, settings: MaskSettings, data: str
) -> str:
    """The HTML page.

    samples: rows under the base and under the tuned model, both inspected without a reason.
    base, tuned: names of the models. n_measured: rows that were to be measured.
    """
    return render_page(
        "attention.html",
        title="Attention before and after tuning",
        styles=(STYLE, "attention.css"),
        found=found,
        base=base,
        tuned=tuned,
        n_failed=n_measured - found.n_rows,
        columns=COLUMNS,
        rows=rows_of(found),
        samples=[_show_sample(*pair) for pair in samples],
        settings=settings,
        data=data,
        versions=collect_versions(),
    )


def rows_of(comparison: Comparison) -> list[tuple[str, ...]]:
    """The whole comparison as the rows of one table. A difference whose interval holds zero is no clear change."""
    rows: list[tuple[str, ...]] = []
    for shift in comparison.shifts:
        is_all = shift.last_block - shift.first_block == comparison.n_blocks - 1
        scale, digits = (1, 3) if shift.measure == "entropy" else (100, 2)
        numbers = (shift.base.value, shift.tuned.value)
        signed = (shift.difference.value, shift.difference.low, shift.difference.high)
        base, tuned = (f"{scale * value:.{digits}f}" for value in numbers)
        difference, low, high = (f"{scale * value:+.{digits}f}".replace("-", "−") for value in signed)
        change = "none clear" if not shift.is_clear else "more" if shift.difference.value > 0 else "less"
        blocks = "all" if is_all else f"{shift.first_block} to {shift.last_block}"
        rows.append((_TITLES[shift.measure], blocks, base, tuned, difference, f"{low} to {high}", change))
    return rows


def _show_sample(base: RowInspection, tuned: RowInspection) -> dict[str, Any]:
    pictures = [
        show_picture(base, number) | {"base": show_overlay(base, number), "tuned": show_overlay(tuned, number)}
        for number in range(len(base.pictures))
    ]
    question = "".join(piece.text for piece in base.pieces if piece.role == "text")
    return {"row": base, "tuned": tuned, "question": " ".join(question.split()), "pictures": pictures}

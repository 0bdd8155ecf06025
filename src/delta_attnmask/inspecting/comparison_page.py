"""The page that compares two models' attention over the same rows: one table, and some rows side by side. No torch."""

from collections.abc import Sequence
from typing import Any

from delta_attnmask.inspecting.comparison import Comparison, Shift
from delta_attnmask.inspecting.inspection import RowInspection
from delta_attnmask.inspecting.inspection_page import STYLE, describe_settings
from delta_attnmask.inspecting.overlays import show_overlay, show_picture
from delta_attnmask.manifest import collect_versions
from delta_attnmask.reporting.page import render_page
from delta_attnmask.reporting.words import write_signed
from delta_attnmask.settings import MaskSettings
from delta_attnmask.statistics import Estimate

COLUMNS = ("measure", "blocks", "base", "tuned", "tuned − base", "95 % interval", "change")
_TITLES = {
    "entropy": "spread (entropy, nats)",
    "image": "on the image, %",
    "question": "on the question, %",
    "sink": "on sinks, %",
    "answer_to_image": "from the answer to the image, %",
}

Samples = Sequence[tuple[RowInspection, RowInspection]]


def render_comparison(comparison: Comparison, samples: Samples, *, settings: MaskSettings, data: str) -> str:
    """The HTML page. samples: rows under the base and under the tuned model, both inspected without a reason."""
    return render_page(
        "attention.html",
        title="Attention before and after tuning",
        styles=(STYLE, "attention.css"),
        found=comparison,
        columns=COLUMNS,
        rows=rows_of(comparison),
        form=comparison.picks.form,
        samples=[_show_sample(base, tuned) for base, tuned in samples],
        settings=describe_settings(settings),
        data=data,
        versions=collect_versions(),
    )


def rows_of(comparison: Comparison) -> list[tuple[str, ...]]:
    """The whole comparison as the rows of one table. A difference whose interval holds zero is no clear change."""
    return [_row_of(shift, comparison.n_blocks) for shift in comparison.shifts]


def _row_of(shift: Shift, n_blocks: int) -> tuple[str, ...]:
    is_all = shift.last_block - shift.first_block == n_blocks - 1
    scale, digits = (1, 3) if shift.measure == "entropy" else (100, 2)

    def write(value: float, sign: str = "") -> str:
        return f"{scale * value:{sign}.{digits}f}".replace("-", "−")

    def interval(estimate: Estimate) -> str:
        return f"{write(estimate.low, '+')} to {write(estimate.high, '+')}"

    return (
        _TITLES[shift.measure],
        "all" if is_all else f"{shift.first_block} to {shift.last_block}",
        write(shift.base.value),
        write(shift.tuned.value),
        write(shift.difference.value, "+"),
        interval(shift.difference),
        "none clear" if not shift.is_clear else "more" if shift.difference.value > 0 else "less",
    )


def _show_sample(base: RowInspection, tuned: RowInspection) -> dict[str, Any]:
    pictures = [
        show_picture(base, number) | {"base": show_overlay(base, number), "tuned": show_overlay(tuned, number)}
        for number in range(len(base.pictures))
    ]
    prompt = "".join(piece.text for piece in base.pieces if piece.role == "text")
    return {
        "row": base.row,
        "label": base.label,
        "question": " ".join(prompt.split()),
        "problem": base.layout_problem,
        "pictures": pictures,
        "losses": "; ".join(
            f"{name}: loss {row.loss:.2f}, masked {row.masked_loss:.2f}, Δ {write_signed(row.delta)}"
            for name, row in (("base", base), ("tuned", tuned))
        ),
    }

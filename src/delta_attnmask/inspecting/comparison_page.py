"""The page that compares two models' attention over the same rows. No torch here."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from delta_attnmask.inspecting import comparison_words as words
from delta_attnmask.inspecting.comparison import Comparison, MeasureComparison
from delta_attnmask.inspecting.inspection import RowInspection
from delta_attnmask.inspecting.inspection_page import STYLE, describe_settings
from delta_attnmask.inspecting.overlays import show_overlay, show_picture
from delta_attnmask.manifest import collect_versions
from delta_attnmask.reporting.drawing import INK, KEPT, LEFT, LINE, WARM, Chart, drawing
from delta_attnmask.reporting.page import render_page
from delta_attnmask.reporting.words import write_signed
from delta_attnmask.settings import MaskSettings
from delta_attnmask.statistics import Estimate

Samples = Sequence[tuple[RowInspection, RowInspection]]


def render_comparison(comparison: Comparison, samples: Samples, *, settings: MaskSettings, data: str) -> str:
    """The HTML page. samples: rows under the base and under the tuned model, both inspected without a reason."""
    return render_page(
        "attention.html",
        title="Attention before and after tuning",
        styles=("report.css", STYLE, "attention.css"),
        headline=words.headline(comparison),
        lead=(
            f"The same {comparison.n_rows:,} rows went through two models, base and tuned. Where their attention goes "
            "was measured in every decoder block and compared row by row."
        ),
        sentences=[words.describe(measure) for measure in comparison.measures],
        caution=words.caution(comparison),
        charts=[draw_measure(measure) for measure in comparison.measures],
        picks=words.describe_picks(comparison.picks),
        samples=[_show_sample(base, tuned) for base, tuned in samples],
        method=_method(comparison, settings, data),
    )


def draw_measure(measure: MeasureComparison) -> Chart:
    """Both models' means by block, and below them the difference with its interval."""
    meaning = words.MEANINGS[measure.name]
    scale = 100 if meaning.is_share else 1
    with drawing(3.3) as figure:
        levels, differences = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, 1])
        _draw(levels, [shift.base for shift in measure.blocks], scale, LEFT, "base", "o")
        _draw(levels, [shift.tuned for shift in measure.blocks], scale, KEPT, "tuned", "s")
        levels.set_ylim(bottom=0)
        levels.set_ylabel("%" if meaning.is_share else "nats")
        levels.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0, handlelength=1.5)
        differences.axhline(0, color=INK, linewidth=0.8)
        _draw(differences, [shift.difference for shift in measure.blocks], scale, WARM, "", "D")
        differences.set_ylabel(meaning.unit)
        differences.set_xlabel("decoder block")
        differences.set_xticks(range(0, len(measure.blocks), max(1, -(-len(measure.blocks) // 9))))
        for axes in (levels, differences):
            axes.grid(axis="y", color=LINE, linewidth=0.6)
            axes.set_axisbelow(True)
    return Chart(
        f"attention-{measure.name}",
        meaning.title,
        f"{meaning.what} {measure.n_rows} rows.",
        f"{meaning.title} in each of {len(measure.blocks)} blocks, base against tuned; the table has the numbers.",
        figure,
        ("block", "base", "tuned", "difference", "verdict"),
        [
            (
                index,
                meaning.write(shift.base.value),
                meaning.write(shift.tuned.value),
                meaning.write_shift(shift),
                words.verdict(shift),
            )
            for index, shift in enumerate(measure.blocks)
        ],
    )


def _draw(axes: Axes, estimates: Sequence[Estimate], scale: int, color: str, name: str, marker: str) -> None:
    blocks = list(range(len(estimates)))
    low, value, high = ([scale * getattr(estimate, end) for estimate in estimates] for end in ("low", "value", "high"))
    axes.fill_between(blocks, low, high, color=color, alpha=0.25, linewidth=0)
    axes.plot(blocks, value, color=color, linewidth=1.4, marker=marker, markersize=3.5, label=name or None)


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


def _method(comparison: Comparison, settings: MaskSettings, data: str) -> list[str]:
    versions = ", ".join(f"{name} {number}" for name, number in collect_versions().items())
    failed = f" {comparison.n_failed} more could not be given to both models." if comparison.n_failed else ""
    maps = (
        "Shares and entropy come from the maps of the models’ own eager attention, mean over heads; padding is left "
        "out. Special tokens count as sinks, not as question. What is left of 100 % goes to the answer."
    )
    return [
        f"Base: {comparison.base}. Tuned: {comparison.tuned}.",
        f"Data: {comparison.n_rows:,} rows of {data}, evenly spread over it.{failed}",
        maps,
        "Intervals: percentile bootstrap over rows, 2,000 draws; differences are taken row by row first.",
        f"Overlays and picks: {describe_settings(settings)}",
        f"Versions: {versions}.",
    ]

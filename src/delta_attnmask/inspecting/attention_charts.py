"""Charts of a comparison: each measure block by block. No torch here."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from delta_attnmask.inspecting.attention_words import MEANINGS, Meaning, verdict
from delta_attnmask.inspecting.comparison import MeasureChange
from delta_attnmask.reporting.drawing import INK, KEPT, LEFT, LINE, WARM, Chart, drawing
from delta_attnmask.statistics import Estimate

_HEIGHT = 3.3


def draw_measure(measure: MeasureChange) -> Chart:
    """Both models' means by block, and below them the difference with its interval."""
    meaning = MEANINGS[measure.name]
    scale = 100 if meaning.is_share else 1
    with drawing(_HEIGHT) as figure:
        levels, differences = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, 1])
        _draw(levels, [change.base for change in measure.blocks], scale, LEFT, "base", "o")
        _draw(levels, [change.tuned for change in measure.blocks], scale, KEPT, "tuned", "s")
        levels.set_ylim(bottom=0)
        levels.set_ylabel("%" if meaning.is_share else "nats")
        levels.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0, handlelength=1.5)
        differences.axhline(0, color=INK, linewidth=0.8)
        _draw(differences, [change.difference for change in measure.blocks], scale, WARM, "", "D")
        differences.set_ylabel("points" if meaning.is_share else "nats")
        differences.set_xlabel("decoder block")
        differences.set_xticks(_ticks(len(measure.blocks)))
        for axes in (levels, differences):
            axes.grid(axis="y", color=LINE, linewidth=0.6)
            axes.set_axisbelow(True)
    return Chart(
        f"attention-{measure.name}",
        meaning.title,
        f"{meaning.what} {measure.n_rows} rows.",
        f"{meaning.title} in each of {len(measure.blocks)} blocks, base against tuned; the table has the numbers.",
        figure,
        ("block", "base", "tuned", "difference", "from", "to", "verdict"),
        _rows(measure, meaning, scale),
    )


def _draw(axes: Axes, estimates: Sequence[Estimate], scale: int, color: str, name: str, marker: str) -> None:
    blocks = list(range(len(estimates)))
    low, value, high = ([scale * getattr(estimate, end) for estimate in estimates] for end in ("low", "value", "high"))
    axes.fill_between(blocks, low, high, color=color, alpha=0.25, linewidth=0)
    axes.plot(blocks, value, color=color, linewidth=1.4, marker=marker, markersize=3.5, label=name or None)


def _ticks(n_blocks: int) -> list[int]:
    step = max(1, -(-n_blocks // 9))
    return list(range(0, n_blocks, step))


def _rows(measure: MeasureChange, meaning: Meaning, scale: int) -> list[tuple[object, ...]]:
    digits = 2 if meaning.is_share else 3

    def number(value: float, sign: str = "") -> str:
        return f"{scale * value:{sign}.{digits}f}".replace("-", "−")

    return [
        (
            index,
            number(change.base.value),
            number(change.tuned.value),
            number(change.difference.value, "+"),
            number(change.difference.low, "+"),
            number(change.difference.high, "+"),
            verdict(change),
        )
        for index, change in enumerate(measure.blocks)
    ]

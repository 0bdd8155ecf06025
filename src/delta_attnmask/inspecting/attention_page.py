"""The page of two models' attention before and after. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from delta_attnmask.inspecting import attention_words as words
from delta_attnmask.inspecting.attention_charts import draw_measure
from delta_attnmask.inspecting.comparison import Comparison
from delta_attnmask.inspecting.inspection import ImageToken, Picture
from delta_attnmask.inspecting.measured import RowAttention
from delta_attnmask.inspecting.overlays import Heat, show_picture, title_views
from delta_attnmask.inspecting.page import STYLE
from delta_attnmask.inspecting.words import describe_settings
from delta_attnmask.manifest import collect_versions
from delta_attnmask.reporting.page import render_page
from delta_attnmask.settings import MaskSettings


@dataclass(frozen=True)
class SideBySide:
    """One row under both models.

    pictures: each image with its views under the base and under the tuned model. problem: why there are no views.
    """

    row: int
    label: str
    question: str
    pictures: tuple[tuple[Picture, Picture], ...]
    base: RowAttention
    tuned: RowAttention
    problem: str = ""


def render_comparison(
    comparison: Comparison, samples: Sequence[SideBySide], *, settings: MaskSettings, data: str
) -> str:
    """The HTML page."""
    return render_page(
        "attention.html",
        title="Attention before and after tuning",
        styles=("report.css", STYLE, "attention.css"),
        headline=words.headline(comparison),
        lead=(
            f"The same {comparison.n_rows:,} rows went through two models, base and tuned. Where their attention goes "
            "was measured in every decoder block and compared row by row."
        ),
        sentences=[words.describe(measure, comparison.n_blocks) for measure in comparison.measures],
        caution=words.caution(comparison),
        overall=_overall(comparison),
        charts=[draw_measure(measure) for measure in comparison.measures],
        picks=words.describe_picks(comparison.picks),
        samples=[_show_sample(sample) for sample in samples],
        method=_method(comparison, settings, data),
    )


def _overall(comparison: Comparison) -> dict[str, Any]:
    rows = []
    for measure in comparison.measures:
        meaning, change = words.MEANINGS[measure.name], measure.overall
        low, high = (words.write_difference(end, meaning) for end in (change.difference.low, change.difference.high))
        rows.append(
            (
                meaning.title,
                words.write(change.base.value, meaning),
                words.write(change.tuned.value, meaning),
                words.write_difference(change.difference.value, meaning),
                f"{low.rsplit(' ', 1)[0]} to {high.rsplit(' ', 1)[0]}",
                words.verdict(change),
                f"{measure.n_blocks_told} of {comparison.n_blocks}",
            )
        )
    columns = ("", "base", "tuned", "difference", "95 % interval", "verdict", "blocks that changed")
    return {"columns": columns, "rows": rows}


def _show_sample(sample: SideBySide) -> dict[str, Any]:
    pictures = []
    for number, (before, after) in enumerate(sample.pictures):
        name = f"Picture {number + 1}" if len(sample.pictures) > 1 else "Picture"
        shown = show_picture(before, f"picture-{sample.row}-{number}", name)
        views = [
            pair
            for base, tuned in zip(_views(before, sample.base), _views(after, sample.tuned), strict=True)
            for pair in ((f"Base, {base['title'].lower()}", base), (f"Tuned, {tuned['title'].lower()}", tuned))
        ]
        pictures.append(shown | {"views": views})
    return {
        "row": sample.row,
        "label": sample.label,
        "question": sample.question,
        "problem": sample.problem,
        "pictures": pictures,
        "losses": "; ".join(
            f"{name}: loss {row.loss:.2f}, masked {row.masked_loss:.2f}, Δ {row.masked_loss - row.loss:+.2f}".replace(
                "-", "−"
            )
            for name, row in (("base", sample.base), ("tuned", sample.tuned))
        ),
    }


def _views(picture: Picture, row: RowAttention) -> list[dict[str, Any]]:
    heat = Heat.of(image_tokens(row), float(row.saliency.sum()))
    titles = title_views(picture.views)
    return [heat.show(cells, title, picture) for cells, title in zip(picture.views, titles, strict=True)]


def image_tokens(row: RowAttention) -> tuple[ImageToken, ...]:
    """A row's image tokens in reading order."""
    pairs = zip(row.saliency[row.is_image].tolist(), row.is_masked[row.is_image].tolist(), strict=True)
    return tuple(ImageToken(number, saliency, is_masked) for number, (saliency, is_masked) in enumerate(pairs))


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

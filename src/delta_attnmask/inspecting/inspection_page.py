"""The page of inspected rows, and one row as a fragment for other pages. No torch here."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from markupsafe import Markup

from delta_attnmask.inspecting.inspection import RowInspection
from delta_attnmask.inspecting.overlays import show_overlay, show_picture
from delta_attnmask.reporting.page import make_environment, render_page
from delta_attnmask.reporting.words import write_percent
from delta_attnmask.settings import MaskSettings

STYLE = "inspection.css"
_MOST_ATTENDED = 20

_TOKENS = {"all": "all tokens", "prompt": "the prompt's tokens", "image": "the image's tokens"}
_ORDER = {"most": "most attended", "least": "least attended", "random": "randomly drawn"}
_QUERIES = {"all": "every token", "answer": "the tokens that predict the answer"}
_REPLACEMENT = {"zero": "zeros", "mean": "the sample's mean state"}
_EXCLUDE = {"none": "", "sink": " (never the first token)", "special": " (never the first or a special token)"}


def render_inspections(inspections: Sequence[RowInspection], *, model: str, data: str) -> str:
    """The HTML page of some rows of one model, data set and setting."""
    rows = ", ".join(str(inspection.row) for inspection in inspections)
    return render_page(
        "inspect.html",
        title=f"Where the model looked: row{'s' if len(inspections) > 1 else ''} {rows}",
        styles=(STYLE,),
        views=[_view(inspection) for inspection in inspections],
        settings=describe_settings(inspections[0].settings),
        model=model,
        data=data,
    )


def render_fragment(inspection: RowInspection) -> Markup:
    """One row for the report's gallery; the page around it needs the style `STYLE`."""
    return Markup(make_environment().get_template("inspection_fragment.html").render(view=_view(inspection)))


def describe_settings(settings: MaskSettings) -> str:
    """What is masked and where, as a reader of a page needs it."""
    block = str(settings.block).replace("-", "−")
    early = (
        " Early tokens are seen by more of them, so the top of a picture tends to be warmer."
        if settings.queries == "all"
        else ""
    )
    return (
        f"Masked are the {write_percent(settings.fraction)} {_ORDER[settings.order]} of {_TOKENS[settings.tokens]}"
        f"{_EXCLUDE[settings.exclude]}: what decoder block {block} puts out for them becomes "
        f"{_REPLACEMENT[settings.replacement]}. Attention counts from {_QUERIES[settings.queries]}, averaged over "
        f"heads and blocks.{early}"
    )


def _view(inspection: RowInspection) -> dict[str, Any]:
    """What the template shows of a row."""
    pictures = [
        show_picture(inspection, number) | {"overlay": show_overlay(inspection, number)}
        for number in range(len(inspection.pictures))
    ]
    return {"row": inspection, "pictures": pictures, "most_attended": _most_attended(inspection)}


def _most_attended(inspection: RowInspection) -> list[dict[str, Any]]:
    """The tokens that receive most. number: of an image token, which has no text; None of others."""
    shown = [
        {"number": None, "text": piece.text, "saliency": piece.saliency, "is_masked": piece.n_masked > 0}
        for piece in inspection.pieces
        if piece.role != "image"
    ] + [
        {"number": token.number, "text": "", "saliency": token.saliency, "is_masked": token.is_masked}
        for token in inspection.image_tokens
    ]
    return sorted(shown, key=itemgetter("saliency"), reverse=True)[:_MOST_ATTENDED]

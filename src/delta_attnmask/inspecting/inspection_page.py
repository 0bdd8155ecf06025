"""The page of inspected rows, and one row as a fragment for other pages. No torch here."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from delta_attnmask.inspecting.inspection import Piece, RowInspection
from delta_attnmask.inspecting.overlays import show_overlay, show_picture
from delta_attnmask.reporting.page import make_environment, render_page
from delta_attnmask.reporting.words import write_percent, write_signed
from delta_attnmask.settings import MaskSettings

STYLE = "inspection.css"
_DELTA_EDGES = (0.05, 0.5, 2.0, 5.0)  # nats
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
    head = {"row": inspection.row, "reason": inspection.reason.rstrip("."), "label": inspection.label}
    if inspection.reason:
        return head
    pieces = [_show_piece(piece) for piece in inspection.pieces]
    pictures = [
        show_picture(inspection, number) | {"overlay": show_overlay(inspection, number)}
        for number in range(len(inspection.pictures))
    ]
    n_image = len(inspection.image_tokens)
    of_image = f" ({inspection.n_masked_image_tokens} of the image’s {n_image})" if n_image else ""
    return head | {
        "loss": f"{inspection.loss:.2f}",
        "masked_loss": f"{inspection.masked_loss:.2f}",
        "delta": write_signed(inspection.delta),
        "masked_count": f"{inspection.n_masked} of {inspection.n_tokens}{of_image}",
        "image_share": write_percent(inspection.image_share) if n_image else "",
        "layout_problem": inspection.layout_problem,
        "pictures": pictures,
        "has_overlay": any(picture["overlay"] for picture in pictures),
        "pieces": pieces,
        "answers": [piece | {"text": _visible(piece["text"])} for piece in pieces if piece["tip"]],
        "most_attended": _most_attended(inspection),
    }


def _show_piece(piece: Piece) -> dict[str, Any]:
    """A piece as the page writes it; its tip, shown on hover and focus, is empty but for answers."""
    shown = {"role": piece.role, "text": piece.text.replace("\n", "↵\n"), "n_masked": piece.n_masked, "tip": ""}
    if piece.role == "image":
        return shown | {"text": f"{piece.n_tokens} image tokens, {piece.n_masked} masked", "is_special": False}
    if piece.loss is None or piece.masked_loss is None or piece.delta is None:
        return shown | {"is_special": piece.role == "special" or not piece.text.strip()}
    loss, masked_loss, delta = f"{piece.loss:.2f}", f"{piece.masked_loss:.2f}", write_signed(piece.delta)
    return shown | {
        "is_special": piece.text.startswith("<") and piece.text.endswith(">"),
        "tip": f"loss {loss} → {masked_loss}, Δ {delta}",
        "level": _delta_level(piece.delta),
        "loss": loss,
        "masked_loss": masked_loss,
        "delta": delta,
    }


def _delta_level(delta: float) -> str:
    level = sum(abs(delta) >= edge for edge in _DELTA_EDGES)
    if level == 0:
        return "even"
    return f"up{level}" if delta > 0 else f"down{min(level, 3)}"


def _most_attended(inspection: RowInspection) -> list[dict[str, Any]]:
    """The tokens that receive most; those of an image by their number."""
    words = [
        (_visible(piece.text), piece.saliency, piece.n_masked > 0)
        for piece in inspection.pieces
        if piece.role != "image"
    ]
    images = [(f"image token {token.number}", token.saliency, token.is_masked) for token in inspection.image_tokens]
    ranked = sorted([*words, *images], key=lambda token: -token[1])[:_MOST_ATTENDED]
    total = inspection.saliency_total or 1.0
    return [
        {"name": name, "share": f"{100 * saliency / total:.1f} %", "is_masked": is_masked}
        for name, saliency, is_masked in ranked
    ]


def _visible(text: str) -> str:
    """A token by itself, white space made visible."""
    return text.replace("\n", "↵").replace(" ", "␣")

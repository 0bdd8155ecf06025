"""The page of inspected rows, and one row as a fragment for other pages. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from delta_attnmask.inspecting.inspection import Piece, RowInspection
from delta_attnmask.inspecting.overlays import Heat, show_picture, title_views
from delta_attnmask.inspecting.words import describe_settings
from delta_attnmask.reporting.inspection import Inspection
from delta_attnmask.reporting.page import make_environment, render_page
from delta_attnmask.reporting.words import write_percent

STYLE = "inspection.css"
_DELTA_EDGES = (0.05, 0.5, 2.0, 5.0)  # nats
_MOST_ATTENDED = 20


def render_inspections(inspections: Sequence[RowInspection], *, model: str, data: str, title: str = "") -> str:
    """The HTML page of some rows of one model, data set and setting."""
    rows = ", ".join(str(inspection.row) for inspection in inspections)
    return render_page(
        "inspect.html",
        title=title or f"Where the model looked: row{'s' if len(inspections) > 1 else ''} {rows}",
        styles=(STYLE,),
        views=[_view(inspection) for inspection in inspections],
        settings=describe_settings(inspections[0].settings),
        model=model,
        data=data,
    )


def render_fragment(inspection: RowInspection) -> Inspection:
    """One row for the report's gallery; the page around it needs the style `STYLE`."""
    html = make_environment().get_template("inspection_fragment.html").render(view=_view(inspection))
    return Inspection(Markup(html))


@dataclass(frozen=True)
class _ShownPiece:
    """A piece as the page writes it. tip: what shows on hover and focus; empty but for answers."""

    role: str
    text: str
    n_masked: int
    is_special: bool
    tip: str = ""
    level: str = ""
    loss: str = ""
    masked_loss: str = ""
    delta: str = ""


def _view(inspection: RowInspection) -> dict[str, Any]:
    """What the template shows of a row."""
    head = {"row": inspection.row, "reason": inspection.reason.rstrip("."), "label": _label(inspection)}
    if inspection.reason:
        return head
    pieces = _show_pieces(inspection)
    pictures = [_show_picture(inspection, number) for number in range(len(inspection.pictures))]
    n_image = len(inspection.image_tokens)
    of_image = f" ({inspection.n_masked_image_tokens} of the image’s {n_image})" if n_image else ""
    return head | {
        "loss": _nats(inspection.loss),
        "masked_loss": _nats(inspection.masked_loss),
        "delta": _signed(inspection.delta),
        "masked_count": f"{inspection.n_masked} of {inspection.n_tokens}{of_image}",
        "image_share": write_percent(inspection.image_share) if n_image else "",
        "layout_fault": inspection.layout_fault,
        "unplaced": _describe_unplaced(inspection),
        "pictures": pictures,
        "has_overlay": any(picture["views"] for picture in pictures),
        "pieces": pieces,
        "answers": [replace(piece, text=_visible(piece.text)) for piece in pieces if piece.tip],
        "most_attended": _most_attended(inspection),
    }


def _label(inspection: RowInspection) -> str:
    return " · ".join(text for text in (inspection.source, inspection.id) if text)


def _describe_unplaced(inspection: RowInspection) -> str:
    """What is said of image tokens that are on no picture, where others are."""
    placed = {cell.number for picture in inspection.pictures for view in picture.views for cell in view}
    others = [token for token in inspection.image_tokens if token.number not in placed]
    if not placed or not others:
        return ""
    n_masked = sum(token.is_masked for token in others)
    return (
        f"{len(others)} image tokens show no part of a picture (ends of lines, padding); {n_masked} of them are masked."
    )


def _show_picture(inspection: RowInspection, number: int) -> dict[str, Any]:
    picture = inspection.pictures[number]
    name = f"Picture {number + 1}" if len(inspection.pictures) > 1 else "Picture"
    heat = Heat.of(inspection.image_tokens, inspection.saliency_total)
    titles = title_views(picture.views)
    views = [heat.show(cells, title, picture) for cells, title in zip(picture.views, titles, strict=True)]
    return show_picture(picture, f"picture-{inspection.row}-{number}", name) | {"views": views}


def _show_pieces(inspection: RowInspection) -> list[_ShownPiece]:
    shown, n_images = [], 0
    for piece in inspection.pieces:
        n_images += piece.role == "image"
        shown.append(_show_piece(piece, n_images))
    return shown


def _show_piece(piece: Piece, n_images: int) -> _ShownPiece:
    if piece.role == "image":
        text = f"picture {n_images}: {piece.n_tokens} tokens, {piece.n_masked} masked"
        return _ShownPiece(piece.role, text, piece.n_masked, is_special=False)
    text = piece.text.replace("\n", "↵\n")
    if piece.loss is None or piece.masked_loss is None or piece.delta is None:
        is_special = piece.role == "special" or not piece.text.strip()
        return _ShownPiece(piece.role, text, piece.n_masked, is_special)
    return _ShownPiece(
        role=piece.role,
        text=text,
        n_masked=piece.n_masked,
        is_special=piece.text.startswith("<") and piece.text.endswith(">"),
        tip=f"loss {_nats(piece.loss)} → {_nats(piece.masked_loss)}, Δ {_signed(piece.delta)}",
        level=_delta_level(piece.delta),
        loss=_nats(piece.loss),
        masked_loss=_nats(piece.masked_loss),
        delta=_signed(piece.delta),
    )


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
    """A token by itself, white space to be seen."""
    return text.replace("\n", "↵").replace(" ", "␣")


def _nats(value: float) -> str:
    return f"{value:.2f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if round(value, 2) else _nats(0)

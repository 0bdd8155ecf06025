"""What an inspection of one row found: plain values, from which the page is made. No torch here."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from delta_attnmask.settings import MaskSettings

if TYPE_CHECKING:
    from PIL.Image import Image

_DELTA_EDGES = (0.05, 0.5, 2.0, 5.0)  # nats

PieceRole = Literal["text", "special", "image", "answer"]


class Box(NamedTuple):
    """A rectangle on a picture, in shares of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Piece:
    """A run of the prompt that reads as one: a token, the tokens of one character, or a run of image tokens.

    saliency: summed over its tokens. loss, masked_loss: nats, summed over its tokens; None but for answers.
    """

    role: PieceRole
    text: str
    n_tokens: int
    n_masked: int
    saliency: float
    loss: float | None = None
    masked_loss: float | None = None

    @property
    def delta(self) -> float | None:
        return None if self.loss is None or self.masked_loss is None else self.masked_loss - self.loss

    @property
    def level(self) -> str:
        """How much the mask changed its loss, as the page colours it: down3 to down1, even, up1 to up4."""
        delta = self.delta or 0.0
        level = sum(abs(delta) >= edge for edge in _DELTA_EDGES)
        return "even" if level == 0 else f"up{level}" if delta > 0 else f"down{min(level, 3)}"


@dataclass(frozen=True)
class RowInspection:
    """Where the model looked in one row, and what the mask did to its answer.

    reason: why the row can't be inspected; everything after it is empty then.
    loss, masked_loss: nats per answer token. saliency_total: attention that all tokens receive.
    image_saliency, image_is_masked: of each image token, in order.
    grids: for each picture the parts of it that its image tokens show, in order; empty where the layout is unknown.
    layout_problem: why it is unknown.
    """

    row: int
    id: str
    source: str
    settings: MaskSettings
    reason: str = ""
    loss: float = 0.0
    masked_loss: float = 0.0
    saliency_total: float = 0.0
    pieces: tuple[Piece, ...] = ()
    pictures: tuple["Image", ...] = ()
    image_saliency: tuple[float, ...] = ()
    image_is_masked: tuple[bool, ...] = ()
    grids: tuple[list[Box], ...] = ()
    layout_problem: str = ""

    @property
    def delta(self) -> float:
        return self.masked_loss - self.loss

    @cached_property
    def n_tokens(self) -> int:
        return sum(piece.n_tokens for piece in self.pieces)

    @cached_property
    def n_masked(self) -> int:
        return sum(piece.n_masked for piece in self.pieces)

    @property
    def image_share(self) -> float:
        """Share of the attention that image tokens receive."""
        return sum(self.image_saliency) / (self.saliency_total or 1.0)

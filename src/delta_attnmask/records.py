"""A conversation about images as the user wrote it, before any model has seen it. No torch here."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from delta_attnmask.errors import ReasonCode, RowError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """One message. `parts` are strings and, in place of an image, None: the k-th None is the k-th image."""

    role: Role
    parts: tuple[str | None, ...]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if part is not None)


@dataclass(frozen=True, eq=False)
class ImageRef:
    """Where one image is: exactly one of `path`, `data`, `picture` and `place` says so. Can be hashed and pickled.

    path: below the image folder of part `part` of the data, as written. data: the encoded image itself.
    picture: a PIL image, equal to nothing but itself. place: the row in part `part`'s own file, and which of its
        images.
    is_blank: the picture is painted over in its mean colour.
    """

    path: str = ""
    data: bytes | None = field(default=None, repr=False)
    picture: Any = None
    place: tuple[int, int] | None = None
    part: int = 0
    is_blank: bool = False

    def __str__(self) -> str:
        if self.place is not None:
            return f"image {self.place[1]} of row {self.place[0]}"
        if self.data is not None:
            return f"image of {len(self.data)} bytes"
        return self.path or f"image of {self.picture.width}x{self.picture.height} pixels in memory"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageRef) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, ...]:
        picture = None if self.picture is None else id(self.picture)
        return self.path, self.data, picture, self.place, self.part, self.is_blank


@dataclass(frozen=True)
class Record:
    """One input row.

    row: position in the input, from 0.
    key: hex SHA-256 of the row's own bytes; together with `row` it shows whether two runs read the same row.
    images: in the order in which the text places them.
    own: the row's values, as text, of the columns that were asked for (`Rows.columns`).
    reason_code, reason: why the row can't be used; empty for a good row. A bad row has no turns.
    """

    row: int
    key: str
    id: str = ""
    source: str = ""
    turns: tuple[Turn, ...] = ()
    images: tuple[ImageRef, ...] = ()
    reason_code: ReasonCode | Literal[""] = ""
    reason: str = ""
    own: tuple[str, ...] = ()
    raw: bytes = field(default=b"", repr=False, compare=False)

    @property
    def error(self) -> RowError | None:
        """Why the row can't be used; None for a good row."""
        return RowError(self.reason_code, self.reason) if self.reason_code else None


@dataclass(frozen=True)
class Fingerprint:
    """Which bytes a file holds."""

    sha256: str
    n_bytes: int


# What kind of row a record is: the strata that selection keeps in balance

_MAX_QUESTION = 160  # characters; longer questions are hardly ever asked twice
_YES_NO = re.compile(r"(yes|no|true|false)\b[.!]?$", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[\d.,:/]+\s?%?$")
_LISTED = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s", re.MULTILINE)


def question(record: Record) -> str:
    """The first thing that the user asks: lower case, single spaces, cut off after 160 characters."""
    first = next((turn.text for turn in record.turns if turn.role == "user"), "")
    return " ".join(first.lower().split())[:_MAX_QUESTION]


def answer_type(record: Record) -> str:
    """The form of the first answer: yes/no, number, word, phrase, sentence, paragraph or list; "" without one."""
    return form_of(next((turn.text for turn in record.turns if turn.role == "assistant"), ""))


def form_of(text: str) -> str:
    """The form of one answer, by the same names."""
    answer = text.strip()
    if not answer:
        return ""
    if _YES_NO.match(answer):
        return "yes/no"
    if _NUMBER.match(answer):
        return "number"
    if len(_LISTED.findall(answer)) > 1:
        return "list"
    n_words = len(answer.split())
    for name, longest in (("word", 1), ("phrase", 4), ("sentence", 30)):
        if n_words <= longest:
            return name
    return "paragraph"

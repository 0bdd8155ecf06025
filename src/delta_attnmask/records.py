"""A conversation about images as the user wrote it, before any model has seen it. No torch here."""

from dataclasses import dataclass, field
from typing import Literal

from delta_attnmask.errors import ReasonCode, RowError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """One message. `parts` are strings and, where an image stands, None: the k-th None is the k-th image."""

    role: Role
    parts: tuple[str | None, ...]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if part is not None)


@dataclass(frozen=True)
class Record:
    """One input row.

    row: position in the input, from 0.
    key: hex SHA-256 of the row's own bytes; together with `row` it tells whether two runs saw the same thing.
    images: paths below the image folder (or `data:` URIs) as written, in the order in which the text places them.
    reason_code, reason: why the row can't be used; empty for a good row. A bad row has no turns.
    """

    row: int
    key: str
    id: str = ""
    source: str = ""
    turns: tuple[Turn, ...] = ()
    images: tuple[str, ...] = ()
    reason_code: ReasonCode | Literal[""] = ""
    reason: str = ""
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

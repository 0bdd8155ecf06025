"""References to images that stand in a data file itself: `embedded:ROW:K` is the K-th image of a row. No torch here."""

import re
from typing import NamedTuple

_PATTERN = re.compile(r"embedded:(\d{1,12}):(\d{1,6})")


class Embedded(NamedTuple):
    """Where an image stands: the row within its file, and which of the row's images."""

    row: int
    number: int

    def __str__(self) -> str:
        return f"embedded:{self.row}:{self.number}"


def parse_embedded(reference: str) -> Embedded | None:
    found = _PATTERN.fullmatch(reference)
    return Embedded(int(found[1]), int(found[2])) if found else None

"""Why rows fail, counted by kind, and what mends it. No torch here."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_N_EXAMPLES = 5
_N_TOLD = 3
_QUOTED = re.compile(r"(?<!\w)b?'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_NUMBER = re.compile(r"(\d+ <image> for \d+)|\d+")
_MENDS = {
    "no image folder was given": "give the folder of the images with --images",
    "no such file": "give the folder that the image paths start in with --images",
    "outside the image folder": "--allow-outside follows such paths; only for data that you trust",
}


@dataclass
class Fault:
    """Rows that fail for one reason, but for its names and numbers.

    rows: the first few. example: the first reason in full.
    """

    n_rows: int = 0
    rows: list[int] = field(default_factory=list)
    example: str = ""

    def add(self, row: int) -> None:
        self.n_rows += 1
        self.rows += [row] if len(self.rows) < _N_EXAMPLES else []


def generalise(reason: str) -> str:
    """A reason without the names and numbers of one row, so that equal faults can be counted.

    How many images there are, and how many places for them, makes a kind of its own.
    """
    return _NUMBER.sub(lambda found: found[1] or "N", _QUOTED.sub("…", reason))


def count_fault(faults: dict[str, Fault], row: int, reason: str) -> None:
    faults.setdefault(generalise(reason), Fault(example=reason)).add(row)


def count_faults(reasons: Iterable[tuple[int, str]]) -> dict[str, Fault]:
    """The faults of rows, given with their reasons."""
    faults: dict[str, Fault] = {}
    for row, reason in reasons:
        count_fault(faults, row, reason)
    return faults


def commonest(faults: Mapping[str, Fault]) -> list[Fault]:
    """All kinds, that of the most rows first."""
    return sorted(faults.values(), key=lambda fault: -fault.n_rows)


def describe_faults(faults: Mapping[str, Fault]) -> str:
    """The commonest kinds with their numbers of rows and the first mend that one has, in one line."""
    ordered = commonest(faults)
    n_more = len(ordered) - _N_TOLD
    said = [f"{fault.n_rows} like this: {fault.example}" for fault in ordered[:_N_TOLD]]
    said += [f"and {n_more} more kind{'s' * (n_more > 1)}"] if n_more > 0 else []
    said += [mend for fault in ordered[:_N_TOLD] if (mend := find_mend(fault.example))][:1]
    return "; ".join(said)


def find_mend(reason: str) -> str:
    """What to do where rows fail for this reason; empty where the reason says it all."""
    kind = generalise(reason).lower()
    return next((mend for fault, mend in _MENDS.items() if fault in kind), "")


def show_bytes(data: bytes) -> str:
    """Bytes for a message, in quotes: as text where all of it is printable, else as hexadecimal digits."""
    text = data.decode("ascii", errors="replace")
    return f"'{text}'" if text.isascii() and text.isprintable() else f"the bytes '{data.hex(' ')}'"

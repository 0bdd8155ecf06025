"""Why rows fail, counted by kind, and how to fix it. No torch here."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from delta_attnmask.errors import ReasonCode

_N_EXAMPLES = 5
_N_SHOWN = 3
_QUOTED = re.compile(r"(?<!\w)b?'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_NUMBER = re.compile(r"(\d+ <image> for \d+)|\d+")
_FIXES: Mapping[str, str] = {
    ReasonCode.NO_IMAGE_FOLDER: "give the folder of the images with --images",
    ReasonCode.IMAGE_MISSING: "give the folder that the image paths are relative to with --images",
    ReasonCode.IMAGE_OUTSIDE: "--allow-outside follows such paths; only for data that you trust",
}

Reason = tuple[int, str, str]  # a row, the code of its reason, and the reason
Faults = dict[tuple[str, str], "Fault"]  # by code, and by the reason without names and numbers


@dataclass
class Fault:
    """Rows that fail for one reason, but for its names and numbers.

    code: of the reason. example: the first reason in full. rows: the first few.
    """

    code: str
    example: str

    n_rows: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        self.n_rows += 1
        self.rows += [row] if len(self.rows) < _N_EXAMPLES else []


def generalise(reason: str) -> str:
    """A reason without the names and numbers of one row, so that equal faults can be counted.

    How many images there are, and how many places for them, makes a kind of its own.
    """
    return _NUMBER.sub(lambda found: found[1] or "N", _QUOTED.sub("…", reason))


def count_fault(faults: Faults, row: int, code: str, reason: str) -> None:
    faults.setdefault((code, generalise(reason)), Fault(code, reason)).add(row)


def count_faults(reasons: Iterable[Reason]) -> Faults:
    """The faults of rows, given with their reasons."""
    faults: Faults = {}
    for reason in reasons:
        count_fault(faults, *reason)
    return faults


def commonest(faults: Faults) -> list[Fault]:
    """All kinds, that of the most rows first."""
    return sorted(faults.values(), key=lambda fault: -fault.n_rows)


def describe_faults(faults: Faults) -> str:
    """The commonest kinds with their numbers of rows and the first fix that is known, in one line."""
    shown = commonest(faults)[:_N_SHOWN]
    said = [f"{fault.n_rows} like this: {fault.example}" for fault in shown]
    said += [f"and {len(faults) - _N_SHOWN} more"] if len(faults) > _N_SHOWN else []
    return "; ".join(said + [fix for fault in shown if (fix := find_fix(fault.code))][:1])


def find_fix(code: str) -> str:
    """What to do where rows fail for this kind of reason; empty where the reason says it all."""
    return _FIXES.get(code, "")

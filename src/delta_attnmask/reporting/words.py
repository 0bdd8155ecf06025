"""How pages write numbers and names; `page.py` makes each a filter of the templates. No torch here."""

import math
from collections.abc import Sequence

KINDS = {
    "image_swapped": "wrong image",
    "image_near": "nearly right image",
    "image_blank": "blank image",
    "answer_swapped": "wrong answer",
    "answer_near": "nearly right answer",
    "answer_same_question": "plausible wrong answer",
    "flipped": "one fact flipped",
    "word_changed": "one word changed",
    "words_shuffled": "words shuffled",
    "truncated": "answer cut off",
    "generic": "generic answer",
    "question_swapped": "wrong question",
}
_UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"))


def name_kind(kind: str) -> str:
    """A kind of planted defect in plain words."""
    return KINDS.get(kind, kind.replace("_", " "))


def join_names(names: Sequence[str]) -> str:
    """a, b and c"""
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def write_number(value: object) -> str:
    """A cell of a table: thousands parted, four figures, true minus signs; "–" for nothing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace("-", "−")
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−") if abs(value) < 10_000 else f"{value:,.0f}".replace("-", "−")
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def is_number(value: object) -> bool:
    """Whether a cell is set to the right: a number, a share or nothing."""
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and value.endswith(" %"))


def write_share(share: float) -> str:
    """0.1234 as 12.3 %, and 0.0004 as 0.04 %."""
    percent = 100 * share
    return f"{percent:.1f} %" if percent >= 0.1 or percent == 0 else f"{percent:.2g} %"


def write_percent(share: float) -> str:
    """0.1234 as 12 %, in one piece."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def write_signed(value: float) -> str:
    """+1.50 or −0.25; nothing is neither more nor less."""
    return f"{value:+.2f}".replace("-", "−") if round(value, 2) else "0.00"


def write_seconds(seconds: float) -> str:
    """In the largest unit of which there are two or more."""
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:,.3g} {unit}"
    return f"{seconds:,.3g} s"


def count(n: int, noun: str) -> str:
    """1 row, 2,000 rows."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"

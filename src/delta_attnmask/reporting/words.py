"""How the report calls things and writes numbers. No torch here."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

KINDS = {
    "image_swapped": "wrong image",
    "image_blank": "blank image",
    "answer_swapped": "wrong answer",
    "answer_same_question": "plausible wrong answer",
    "flipped": "one fact flipped",
    "words_shuffled": "words shuffled",
    "truncated": "answer cut off",
    "generic": "generic answer",
    "question_swapped": "wrong question",
}
FORMS = {
    "delta": "Δ",
    "relative_delta": "Δ\N{NO-BREAK SPACE}/\N{NO-BREAK SPACE}(loss\N{NO-BREAK SPACE}+\N{NO-BREAK SPACE}0.05)",
    "delta_minus_loss": "Δ\N{NO-BREAK SPACE}−\N{NO-BREAK SPACE}loss",
    "delta_probability": "Δ\N{NO-BREAK SPACE}probability",
    "low_loss": "low loss",
}
COLUMNS = {"answer_type": "answer type", "question": "question", "source": "source", "cluster": "cluster"}
_UNITS = ((86_400, "days"), (3_600, "h"), (60, "min"))


def name_kind(kind: str) -> str:
    """A kind of planted defect in plain words."""
    return KINDS.get(kind, kind.replace("_", " "))


def name_form(column: str) -> str:
    """What rows are ranked by, as a formula where it is one."""
    return FORMS.get(column, column)


def name_settings(settings: Mapping[str, Any]) -> str:
    """Mask settings in few words, such as "answer → all, 0.2, block −4": queries, tokens, fraction, block.

    What else isn't as usual stands beside them: the order in front, replacement and exclusion behind.
    """
    order = "" if settings.get("order", "most") == "most" else f"{settings['order']} tokens, "
    block = str(settings.get("block", "")).replace("-", "−")
    more = "" if (how := settings.get("replacement", "zero")) == "zero" else f", by the {how}"
    more += "" if (what := settings.get("exclude", "none")) == "none" else f", but {what} tokens"
    masked = f"{settings.get('queries')} → {settings.get('tokens')}, {settings.get('fraction', 0):g}, block {block}"
    return f"{order}{masked}{more}"


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
    return str(value)


def to_prose(text: str) -> Markup:
    """A sentence as HTML, what stands between backticks as code; no line ends before a percent sign."""
    parts = text.replace(" %", "\N{NO-BREAK SPACE}%").split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


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


def write_rate(rate: float) -> str:
    """Two figures, for sentences: 28, 0.31, 1,200."""
    digits = 1 - math.floor(math.log10(rate)) if rate > 0 else 0
    return f"{rate:.{max(0, digits)}f}" if digits > 0 else f"{round(rate, digits):,.0f}"


def count(n: int, noun: str, plural: str = "") -> str:
    """1 row, 2,000 rows."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"

"""What kind of row a record is: the strata that selection keeps in balance. No torch here."""

import re

from delta_attnmask.records import Record

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

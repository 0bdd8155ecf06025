"""Answers made comparable, after the normalisation of the published VQA measure. No torch here.

In this order: lower case; commas before three digits go; apostrophes go (so that "don't" is "dont"); a point stays
before a digit (3.5, .5) and goes elsewhere without leaving a space (so that "U.S." is "us"); every other punctuation
mark becomes a space, but for a colon between digits, a minus before a digit, and the sign of per cent, which moves to
its number; the number words none and zero to ten become digits; a, an and the go, unless nothing else is left (an
answer "A" stays one); single spaces. Accents, symbols and scripts stay as they are, and so does an answer of nothing
but punctuation.

What differs from the published measure: apostrophes go, where it has a table of contractions; punctuation is that of
all scripts, where it has a list of ASCII marks, some of which vanish without a space beside one; a minus stays; "A"
alone stays.

Source: the evaluation of VQA v2 (Goyal et al., arXiv:1612.00837), https://visualqa.org/evaluation.html.
"""

import re
import unicodedata

_ARTICLES = frozenset({"a", "an", "the"})
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_WORDS)} | {"none": "0"}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_APOSTROPHES = re.compile(r"['’‘`]")
_PER_CENT = re.compile(r"(?<=\d)\s+(?=%)")
_POINTS = re.compile(r"(?<=[^\W\d])\.|\.(?!\d)")  # behind a letter, or before no digit
_MARKS = re.compile(r"(?P<kept>\.(?=\d)|(?<=\d):(?=\d)|(?<![\w.])[-−](?=\.?\d)|%)|[^\w\s]|_")


def normalise(text: str) -> str:
    """The answer as it is compared; two answers are the same if this is."""
    lower = unicodedata.normalize("NFC", text).lower()
    plain = lower
    for removed in (_THOUSANDS, _APOSTROPHES, _PER_CENT, _POINTS):
        plain = removed.sub("", plain)
    words = [_NUMBERS.get(word, word) for word in _MARKS.sub(_keep_or_space, plain).split()]
    return " ".join([word for word in words if word not in _ARTICLES] or words or lower.split())


def _keep_or_space(found: re.Match[str]) -> str:
    mark = found.group()
    if found["kept"]:
        return "-" if mark == "−" else mark
    return " " if unicodedata.category(mark).startswith("P") else mark

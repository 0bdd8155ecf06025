"""How answers are measured here, and by lmms-eval: this file is also the utils.py of an exported task.

`harnesses` copies it as it is, so it needs nothing of this package, only Pillow. lmms-eval turns lines of the exported
parquet into messages, and answers into measures, by its functions.
"""

# generator: delta-attnmask, by which `export-eval` recognises its own utils.py

import json
import re
import unicodedata
from collections import defaultdict
from io import BytesIO
from typing import Any

from PIL import Image

Line = dict[str, Any]  # of the parquet

_ARTICLES = frozenset({"a", "an", "the"})
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_WORDS)} | {"none": "0"}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_APOSTROPHES = re.compile(r"['’‘`]")
_PER_CENT = re.compile(r"(?<=\d)\s+(?=%)")
_POINTS = re.compile(r"(?<=[^\W\d])\.|\.(?!\d)")  # after a letter, or before no digit
_MARKS = re.compile(r"(?P<kept>\.(?=\d)|(?<=\d):(?=\d)|(?<![\w.])[-−](?=\.?\d)|%)|[^\w\s]|_")


def normalise(text: str) -> str:
    """The answer as it is compared, after the normalisation of the published VQA measure.

    In this order: lower case; commas before three digits go; apostrophes go (so that "don't" is "dont"); a point stays
    before a digit (3.5, .5) and goes elsewhere without leaving a space (so that "U.S." is "us"); every other
    punctuation mark becomes a space, but for a colon between digits, a minus before a digit, and the sign of per cent,
    which moves to its number; the number words none and zero to ten become digits; a, an and the go, unless nothing
    else is left (an answer "A" stays one); single spaces. Accents, symbols and scripts stay as they are, and so does
    an answer of nothing but punctuation.

    What differs from the published measure: apostrophes go, where it has a table of contractions; punctuation is that
    of all scripts, where it has a list of ASCII marks, some of which vanish without a space beside one; a minus stays;
    "A" alone stays.

    Source: the evaluation of VQA v2 (Goyal et al., arXiv:1612.00837), https://visualqa.org/evaluation.html.
    """
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


def doc_to_visual(doc: Line) -> list[Image.Image]:
    """The images before the answer."""
    return [Image.open(BytesIO(data)).convert("RGB") for data in doc["images"]]


def doc_to_text(doc: Line, lmms_eval_specific_kwargs: Any = None) -> str:
    """For models without a chat interface: the conversation so far as plain text."""
    turns = json.loads(doc["messages"])
    texts = ["".join(part.get("text", "") for part in turn["content"]).strip() for turn in turns]
    return "\n".join(texts)


def doc_to_messages(doc: Line, lmms_eval_specific_kwargs: Any = None) -> list[Line]:
    """The conversation so far, with the images in their places."""
    images = iter(doc_to_visual(doc))
    return [
        {
            "role": turn["role"],
            "content": [
                {"type": "image", "url": next(images)} if part["type"] == "image" else part for part in turn["content"]
            ],
        }
        for turn in json.loads(doc["messages"])
    ]


def process_results(doc: Line, results: list[Any]) -> dict[str, Line]:
    """Each measure of one answer, with its source."""
    answer, reference = str(results[0]).strip(), doc["answer"]
    exact, normalised = answer == reference, normalise(answer) == normalise(reference)
    measures = {"exact": exact, "normalised": normalised, "exact_by_source": exact, "normalised_by_source": normalised}
    return {name: {"source": doc["source"], "right": float(right)} for name, right in measures.items()}


def pooled(results: list[Line]) -> float:
    """The share of right answers."""
    return float(sum(result["right"] for result in results) / len(results))


def mean_over_sources(results: list[Line]) -> float:
    """The mean over sources of their shares of right answers."""
    by_source: dict[str, list[Line]] = defaultdict(list)
    for result in results:
        by_source[result["source"]].append(result)
    return sum(pooled(group) for group in by_source.values()) / len(by_source)

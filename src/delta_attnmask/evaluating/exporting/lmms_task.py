"""The task as lmms-eval runs it: from a line of the exported parquet to messages, and from an answer to its measures.

`export_lmms_eval` writes this file, with `normalise` in place of its import, as the task's utils.py; it needs nothing
but Pillow there.
"""

import json
from collections import defaultdict
from io import BytesIO
from typing import Any

from PIL import Image

from delta_attnmask.evaluating.normalising import normalise

Line = dict[str, Any]  # of the parquet


def doc_to_visual(doc: Line) -> list[Image.Image]:
    """The images that stand before the answer."""
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

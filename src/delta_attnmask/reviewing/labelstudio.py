"""The pairs as tasks of Label Studio, with a labelling configuration that asks the same questions.

Tasks: https://labelstud.io/guide/task_format, tags: https://labelstud.io/tags. Its Pairwise tag knows neither ties nor
"can't tell", so each question is a group of Choices. Pictures are held inside the tasks, as file names would tell
where a sample comes from; contact sheets stay with the review page.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from delta_attnmask.artifacts import write_text_atomically
from delta_attnmask.errors import RowError
from delta_attnmask.reviewing.pairs import Pair
from delta_attnmask.reviewing.protocol import ANSWERS, PAIR_QUESTIONS, Answer, Side
from delta_attnmask.reviewing.samples import IMAGE_SIDE, Sample, SampleBook

_LABELS: dict[Answer, str] = {"first": "Sample 1", "second": "Sample 2", "equal": "Equal", "unknown": "Can't tell"}
_SIDES: tuple[tuple[int, Side], ...] = ((1, "first"), (2, "second"))


def export_label_studio(pairs: Iterable[Pair], book: SampleBook, out: Path) -> tuple[Path, Path]:
    """Write OUT.label-studio.json, the tasks, and OUT.label-studio.xml, the configuration; return their paths.

    A task knows its pair by the token alone: which side was selected stands only in the review's file.
    """
    tasks, config = (out.with_name(f"{out.name}.label-studio.{suffix}") for suffix in ("json", "xml"))
    shown = [make_task(pair, book) for pair in pairs if pair.kind != "sheet"]
    write_text_atomically(tasks, json.dumps(shown, ensure_ascii=False, indent=1) + "\n")
    write_text_atomically(config, make_config())
    return tasks, config


def make_task(pair: Pair, book: SampleBook) -> dict[str, Any]:
    """One pair as a task: texts, pictures as data URIs, and the pair's token."""
    data = {"pair": pair.token}
    for number, side in _SIDES:
        (sample,) = book.samples(pair, side)
        data[f"text{number}"] = _to_text(sample)
        data[f"image{number}"] = _to_uri(sample.images, book)
    return {"data": data}


def make_config() -> str:
    """The labelling configuration as XML."""
    view = ElementTree.Element("View")
    sides = ElementTree.SubElement(view, "View", style="display: grid; grid-template-columns: 1fr 1fr; gap: 1rem")
    for number, _ in _SIDES:
        side = ElementTree.SubElement(sides, "View")
        ElementTree.SubElement(side, "Header", value=f"Sample {number}")
        ElementTree.SubElement(side, "Image", name=f"image{number}", value=f"$image{number}")
        ElementTree.SubElement(side, "Text", name=f"text{number}", value=f"$text{number}")
    for question in PAIR_QUESTIONS:
        ElementTree.SubElement(view, "Header", value=f"{question.text} {question.hint}")
        group = ElementTree.SubElement(
            view, "Choices", name=question.name, toName="text1", choice="single", showInline="true", required="true"
        )
        for answer in ANSWERS:
            ElementTree.SubElement(group, "Choice", value=_LABELS[answer], alias=answer)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def _to_text(sample: Sample) -> str:
    return "\n\n".join(f"{turn.speaker}: {turn.text}" for turn in sample.turns)


def _to_uri(images: Sequence[str], book: SampleBook) -> str:
    try:
        data, kind = book.encode_image(images, IMAGE_SIDE)
    except RowError:  # moved since it was scored; the rater sees the gap and can't tell
        data, kind = book.encode_image((), IMAGE_SIDE)
    return f"data:{kind};base64,{b64encode(data).decode()}"

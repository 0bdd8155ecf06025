"""The pairs as tasks of Label Studio, with a configuration that asks the same questions; and its answers back.

Tasks: https://labelstud.io/guide/task_format, tags: https://labelstud.io/tags. Its Pairwise tag knows neither ties nor
"can't tell", so each question is a group of Choices. Pictures are held inside the tasks, as file names would tell
where a sample comes from.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from delta_attnmask.reviewing.protocol import ANSWERS, QUESTIONS, SIDES, Answer, Pair
from delta_attnmask.reviewing.samples import SampleBook
from delta_attnmask.storage import write_text_atomically

_UNDATED = "1970-01-01"
_LABELS: dict[Answer, str] = {"first": "Sample 1", "second": "Sample 2", "equal": "Equal", "unknown": "Can't tell"}


def export_label_studio(pairs: Iterable[Pair], book: SampleBook, out: Path) -> tuple[Path, Path]:
    """Write OUT/label-studio.json, the tasks, and OUT/label-studio.xml, the configuration; return their paths.

    A task knows its pair by the token alone: which side was selected stands only in the protocol.
    """
    tasks, config = out / "label-studio.json", out / "label-studio.xml"
    write_text_atomically(tasks, json.dumps([_make_task(pair, book) for pair in pairs], indent=1) + "\n")
    write_text_atomically(config, make_config())
    return tasks, config


def read_tasks(tasks: Iterable[Any]) -> Iterator[tuple[str, dict[str, object]]]:
    """The annotator and each answer of an export, as the page would save it; other regions, as comments, are skipped.

    Raises ValueError for what is no export.
    """
    for task in tasks:
        data, annotations = (task.get("data"), task.get("annotations")) if isinstance(task, dict) else (None, None)
        if not isinstance(data, dict) or not isinstance(annotations, list):
            raise ValueError("expected an export of Label Studio, tasks with annotations (type JSON)")
        for annotation in annotations:
            if not isinstance(annotation, dict):
                raise ValueError("expected an export of Label Studio, annotations as objects")
            at = annotation.get("updated_at") or annotation.get("created_at") or _UNDATED
            for question, answer in _read_choices(annotation):
                found = {"pair": data.get("pair"), "question": question, "answer": answer, "at": at}
                yield _name_annotator(annotation), found


def _read_choices(annotation: dict[str, Any]) -> Iterator[tuple[str, object]]:
    results = annotation.get("result")
    if annotation.get("was_cancelled") or not isinstance(results, list):
        return
    names = {question.name for question in QUESTIONS}
    for result in results:
        if isinstance(result, dict) and result.get("from_name") in names:
            value = result.get("value")
            choices = value.get("choices") if isinstance(value, dict) else None
            if not isinstance(choices, list) or len(choices) != 1:
                raise ValueError(f"{result['from_name']}: expected one choice")
            yield result["from_name"], choices[0]


def _name_annotator(annotation: dict[str, Any]) -> str:
    """The address or number of who completed an annotation."""
    by = annotation.get("completed_by")
    name = str(by.get("email") or by.get("id")) if isinstance(by, dict) else str(by)
    return f"Label Studio {name}"[:40]


def _make_task(pair: Pair, book: SampleBook) -> dict[str, Any]:
    """One pair as a task: texts, pictures as data URIs, and the pair's token."""
    data = {"pair": pair.token}
    for number, side in enumerate(SIDES, start=1):
        sample = book.sample(pair, side)
        data[f"text{number}"] = "\n\n".join(f"{turn.speaker}: {turn.text}" for turn in sample.turns)
        data[f"image{number}"] = book.embed(sample.images) or book.embed(())
    return {"data": data}


def make_config() -> str:
    """The labelling configuration as XML."""
    view = ElementTree.Element("View")
    sides = ElementTree.SubElement(view, "View", style="display: grid; grid-template-columns: 1fr 1fr; gap: 1rem")
    for number in (1, 2):
        side = ElementTree.SubElement(sides, "View")
        ElementTree.SubElement(side, "Header", value=f"Sample {number}")
        ElementTree.SubElement(side, "Image", name=f"image{number}", value=f"$image{number}")
        ElementTree.SubElement(side, "Text", name=f"text{number}", value=f"$text{number}")
    for question in QUESTIONS:
        ElementTree.SubElement(view, "Header", value=f"{question.text} {question.hint}")
        group = ElementTree.SubElement(
            view, "Choices", name=question.name, toName="text1", choice="single", showInline="true", required="true"
        )
        for answer in ANSWERS:
            ElementTree.SubElement(group, "Choice", value=_LABELS[answer], alias=answer)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"

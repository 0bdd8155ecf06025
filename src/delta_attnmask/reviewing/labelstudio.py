"""The pairs as tasks of Label Studio, with a configuration that asks the same questions; and its answers back.

Tasks: https://labelstud.io/guide/task_format, tags: https://labelstud.io/tags. Its Pairwise tag knows neither ties nor
"can't tell", so each question is a group of Choices. Pictures are held inside the tasks, as file names would tell
where a sample comes from; contact sheets stay with the review page.
"""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from delta_attnmask.artifacts import write_text_atomically
from delta_attnmask.errors import DataError, RowError
from delta_attnmask.reviewing.pairs import Pair
from delta_attnmask.reviewing.protocol import ANSWERS, PAIR_QUESTIONS, Answer, Side
from delta_attnmask.reviewing.samples import IMAGE_SIDE, Sample, SampleBook
from delta_attnmask.reviewing.store import MAX_NAME_CHARS, ReviewStore

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


def import_label_studio(export: Path, store: ReviewStore) -> int:
    """Add the answers of a JSON export of Label Studio to the review; the number of answers that it holds.

    Each annotator becomes a rater; what was added before isn't added again. Raises DataError for what is no export.
    """
    pairs = {pair.token: pair for pair in store.pairs()}
    n_answers = 0
    for task in _read_export(export):
        token = task["data"].get("pair")
        if token not in pairs:
            raise DataError(f"{export}: a task is of another review: its pair {token!r} isn't in {store.path}")
        for annotation in task["annotations"]:
            if not annotation.get("was_cancelled"):
                rater = store.enter(f"Label Studio {_name_annotator(annotation)}"[:MAX_NAME_CHARS])
                for question, answer in _read_choices(annotation):
                    store.judge(rater, pairs[token], question, answer, f"label-studio/{annotation['id']}/{question}")
                    n_answers += 1
    return n_answers


def _read_export(export: Path) -> list[dict[str, Any]]:
    try:
        tasks = json.loads(export.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{export} can't be read: {error}") from error
    shaped = isinstance(tasks, list) and all(
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and isinstance(task.get("annotations"), list)
        and all(isinstance(one, dict) and "id" in one for one in task["annotations"])
        for task in tasks
    )
    if not shaped:
        raise DataError(f"{export} is no export of Label Studio: expected a list of tasks with annotations (type JSON)")
    return list(tasks)


def _name_annotator(annotation: dict[str, Any]) -> str:
    """The address or number of who completed an annotation."""
    by = annotation.get("completed_by")
    return str(by.get("email") or by.get("id")) if isinstance(by, dict) else str(by)


def _read_choices(annotation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Questions and answers of an annotation; other regions, such as comments, are passed over."""
    names = {question.name for question in PAIR_QUESTIONS}
    results = annotation.get("result")
    for result in results if isinstance(results, list) else []:
        if isinstance(result, dict) and result.get("from_name") in names:
            value = result.get("value")
            choices = value.get("choices") if isinstance(value, dict) else None
            if not isinstance(choices, list) or len(choices) != 1 or choices[0] not in ANSWERS:
                raise DataError(f"annotation {annotation['id']}: expected one of {', '.join(ANSWERS)}, got {choices!r}")
            yield result["from_name"], choices[0]


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

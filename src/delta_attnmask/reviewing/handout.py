"""What judges get: a page, or tasks for Label Studio. Both show texts and images, and nothing of where they come from.

Label Studio: https://labelstud.io/guide/task_format, https://labelstud.io/tags. Its Pairwise tag has neither ties nor
"can't tell", so each question is a group of Choices.
"""

import json
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from delta_attnmask.errors import ArtifactError, RowError
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Role
from delta_attnmask.reporting.page import embed_image, make_environment, render_page
from delta_attnmask.reporting.page import write_page as write_html
from delta_attnmask.reviewing.protocol import ANSWERS, QUESTIONS, SIDES, Pair, Protocol, Side
from delta_attnmask.storage import claim_output, write_text_atomically

_PACKAGE = "delta_attnmask.reviewing"
_SPEAKERS: dict[Role, str] = {"system": "System", "user": "Instruction", "assistant": "Answer"}
_IMAGE_SIDE, _IMAGE_BYTES = 1024, 120_000  # px; before base64
_MIN_WORDS = 4  # a text of fewer, or of a script without spaces, is reversed by letters
_WHITE = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="  # where there is no image


def write_page(protocol: Protocol, dataset: Rows, out: Path, *, force: bool = False) -> Path:
    """Write the page for judges into the review's folder; nothing in it depends on which side was selected.

    dataset: as it was scored. Raises ArtifactError for a row that can't be read from it.
    """
    page = out / "review.html"
    html = render_page(
        "judge.html",
        title="Which sample is better?",
        package=_PACKAGE,
        styles=("judge.css",),
        scripts=("judge.js",),
        review=protocol.id,
        questions=[asdict(one) for one in QUESTIONS],
        answers=ANSWERS,
        pairs=protocol.pairs,
        sides=SIDES,
        show=lambda pair, side: show_sample(dataset, pair, side),
    )
    write_html(page, html, force=force)
    return page


def export_label_studio(protocol: Protocol, dataset: Rows, out: Path, *, force: bool = False) -> tuple[Path, Path]:
    """Write OUT/label-studio.json, the tasks, and OUT/label-studio.xml, the configuration; return their paths.

    A task knows its pair by the token alone: only the protocol says which side was selected.
    """
    paths = out / "label-studio.json", out / "label-studio.xml"
    for path in paths:
        claim_output(path, (path.suffix,), force=force)
    tasks = []
    for pair in protocol.pairs:
        data: dict[str, Any] = {"pair": pair.token}
        for number, side in enumerate(SIDES, start=1):
            turns, images = show_sample(dataset, pair, side)
            data[f"text{number}"] = "\n\n".join(f"{speaker}: {text}" for speaker, text in turns)
            data[f"images{number}"] = [uri or _WHITE for uri in images] or [_WHITE]
        tasks.append({"meta": {"generator": "delta-attnmask"}, "data": data})
    config = make_environment(_PACKAGE).get_template("label-studio.xml").render(questions=QUESTIONS, answers=ANSWERS)
    for path, text in zip(paths, (json.dumps(tasks, indent=1), config), strict=True):
        write_text_atomically(path, text + "\n")
    return paths


def show_sample(dataset: Rows, pair: Pair, side: Side) -> tuple[list[tuple[str, str]], list[str]]:
    """What is on a side: speaker and text of each turn, and the images as `data:` URIs of at most 1,024 px.

    Images are encoded again, so that nothing of the files is left but their pixels; where they can't be loaded there is
    one empty URI. The places of several images are marked in the text.
    """
    row = pair.first if side == "first" else pair.second
    record = next(dataset.records(row, row + 1), None)
    if record is None or record.error:
        raise ArtifactError(f"row {row} of the review can't be read from the data that was scored")
    marks = iter([""]) if len(record.images) == 1 else (f"[image {number}] " for number in count(1))
    turns = []
    for turn in record.turns:
        text = "".join(next(marks) if part is None else part for part in turn.parts).strip()
        turns.append((_SPEAKERS[turn.role], reverse(text) if pair.is_check and side != pair.target else text))
    try:
        images = dataset.load_images(record.images)
    except RowError:  # moved since it was scored; the judge sees the gap and can't tell
        return turns, [""]
    return turns, [embed_image(image, max_side=_IMAGE_SIDE, max_bytes=_IMAGE_BYTES).uri for image in images]


def reverse(text: str) -> str:
    """The text with its words, or its letters where there are few words, in reverse order."""
    words = text.split()
    return " ".join(reversed(words)) if len(words) >= _MIN_WORDS else text[::-1]

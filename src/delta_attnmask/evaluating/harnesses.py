"""A test set for other evaluation harnesses. No torch here.

lmms-eval: OUT/NAME.yaml, OUT/utils.py and OUT/NAME.parquet, with whole conversations.
    lmms-eval --include_path OUT --tasks NAME --model ... --log_samples --output_path ...
VLMEvalKit: OUT/NAME.tsv with index, image, question, answer and category. It takes one question a line, without a
    conversation before it: of each row the first answer is asked for. Rows without an image before it, which it would
    skip silently, are left out with a reason.
"""

import base64
import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL.Image import Image

from delta_attnmask.errors import DataError, RowError, SettingsError
from delta_attnmask.evaluating.asking import AskedTurn, Turns, asked_turns
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record
from delta_attnmask.storage import write_atomically, write_text_atomically

_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("turn", pa.int32()),
        pa.field("source", pa.string()),
        pa.field("messages", pa.string()),  # JSON; an image is {"type": "image"}
        pa.field("images", pa.list_(pa.binary())),
        pa.field("answer", pa.string()),
    ]
)
_LINES_PER_GROUP = 256
_COLUMNS = ("index", "image", "question", "answer", "category")
# `!function` is a tag of lmms-eval's own loader. JSON strings are YAML strings.
_TASK = """\
task: {name}
dataset_path: parquet
dataset_kwargs:
  data_files:
    test: {parquet}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_messages: !function utils.doc_to_messages
doc_to_target: "answer"
process_results: !function utils.process_results
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  temperature: 0
  do_sample: false
metric_list:
  - metric: exact
    aggregation: !function utils.pooled
    higher_is_better: true
  - metric: normalised
    aggregation: !function utils.pooled
    higher_is_better: true
  - metric: exact_by_source
    aggregation: !function utils.mean_over_sources
    higher_is_better: true
  - metric: normalised_by_source
    aggregation: !function utils.mean_over_sources
    higher_is_better: true
metadata:
  version: 1.0
"""


@dataclass(frozen=True)
class Export:
    """What came of an export. left_out: rows that aren't in it, with the reason."""

    n_items: int
    left_out: dict[int, str]


@dataclass(frozen=True)
class _Item:
    """One question. images: as PNG, those that stand before the answer, in order."""

    record: Record
    asked: AskedTurn
    images: tuple[bytes, ...]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation before the answer; an image is {"type": "image"}."""
        return [
            {
                "role": turn.role,
                "content": [
                    {"type": "image"} if part is None else {"type": "text", "text": part} for part in turn.parts
                ],
            }
            for turn in self.record.turns[: self.asked.stop - 1]
        ]


def export_lmms_eval(
    dataset: Rows,
    out: Path,
    name: str,
    turns: Turns = "all",
    max_new_tokens: int = 512,
    *,
    with_images_only: bool = False,
) -> Export:
    """Write the three files. Raises SettingsError for a name that is no word, DataError where no row can be used."""
    _check_name(name)
    left_out: dict[int, str] = {}
    n_items = 0
    items = _items(dataset, turns, left_out, with_images_only=with_images_only)
    parquet = out / f"{name}.parquet"
    with (
        write_atomically(parquet) as file,
        pq.ParquetWriter(file, _SCHEMA, compression="none") as writer,  # PNG is compressed already
    ):
        while group := list(islice(items, _LINES_PER_GROUP)):
            n_items += len(group)
            writer.write_table(pa.Table.from_pylist([_to_line(item) for item in group], schema=_SCHEMA))
        _require_items(n_items, left_out)
    write_text_atomically(out / "utils.py", files(__package__).joinpath("measures.py").read_text(encoding="utf-8"))
    location = json.dumps(str(parquet.absolute()), ensure_ascii=False)
    task = _TASK.format(name=json.dumps(name), parquet=location, max_new_tokens=max_new_tokens)
    write_text_atomically(out / f"{name}.yaml", task)
    return Export(n_items, left_out)


def export_vlmevalkit(dataset: Rows, out: Path, name: str) -> Export:
    """Write the table. Raises SettingsError for a name that is no word, DataError where no row can be used."""
    _check_name(name)
    left_out: dict[int, str] = {}
    n_items = 0
    with write_atomically(out / f"{name}.tsv") as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        writer.writerow(_COLUMNS)
        for item in _items(dataset, "all", left_out, with_images_only=True):
            if item.asked.turn > 0:
                continue
            if not item.images:
                left_out[item.record.row] = "no image stands before the row's first answer"
                continue
            writer.writerow(_to_cells(item))
            n_items += 1
        _require_items(n_items, left_out)
        text.flush()
        text.detach()
    return Export(n_items, left_out)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise SettingsError(f"name={name!r}: expected letters, digits and underscores")


def _require_items(n_items: int, left_out: dict[int, str]) -> None:
    if not n_items:
        reason = next(iter(left_out.values()), "there are none")
        raise DataError(f"no row can be exported; the first reason is: {reason}")


def _items(dataset: Rows, turns: Turns, left_out: dict[int, str], *, with_images_only: bool) -> Iterator[_Item]:
    """Every question of the data; rows that can't be used are put into `left_out` with the reason."""
    for record in dataset:
        if record.reason or (with_images_only and not record.images):
            left_out[record.row] = record.reason or "the row has no image"
            continue
        try:
            images = [_to_png(dataset.load_image(reference)) for reference in record.images]
        except RowError as error:
            left_out[record.row] = str(error)
            continue
        for asked in asked_turns(record, turns):
            yield _Item(record, asked, tuple(images[: asked.n_images]))


def _to_png(image: Image) -> bytes:
    """The very pixels that `evaluate` shows: upright, RGB."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _to_line(item: _Item) -> dict[str, Any]:
    return {
        "row": item.record.row,
        "turn": item.asked.turn,
        "source": item.record.source,
        "messages": json.dumps(item.messages, ensure_ascii=False),
        "images": list(item.images),
        "answer": item.asked.reference,
    }


def _to_cells(item: _Item) -> list[str]:
    """Several images are written as a list; one as its base64 alone."""
    encoded = [base64.b64encode(image).decode("ascii") for image in item.images]
    image = encoded[0] if len(encoded) == 1 else json.dumps(encoded)
    return [str(item.record.row), image, item.asked.question, item.asked.reference, item.record.source]

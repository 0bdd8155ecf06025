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
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL.Image import Image

from delta_attnmask.errors import DataError, ReasonCode, RowError, SettingsError
from delta_attnmask.evaluating.asking import AskedTurn, asked_turns
from delta_attnmask.reading.faults import Reason
from delta_attnmask.reading.rows import FileRows, Rows
from delta_attnmask.records import Record
from delta_attnmask.storage import claim_output, is_marked, write_atomically, write_text_atomically

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
# `!function` is a tag of lmms-eval's own loader. JSON strings are YAML strings.
_TASK = """\
# generator: delta-attnmask
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
{metrics}metadata:
  version: 1.0
"""
_METRIC = "  - metric: {}\n    aggregation: !function utils.{}\n    higher_is_better: true\n"
_AGGREGATIONS = {
    "exact": "pooled",
    "normalised": "pooled",
    "exact_by_source": "mean_over_sources",
    "normalised_by_source": "mean_over_sources",
}

Question = tuple[Record, AskedTurn, list[bytes]]  # with the images before the answer, as PNG


@dataclass
class Export:
    """The outcome of an export. left_out: rows that aren't in it, with the reason."""

    n_items: int = 0
    left_out: list[Reason] = field(default_factory=list)


def export_lmms_eval(
    dataset: Rows,
    out: Path,
    name: str,
    max_new_tokens: int = 512,
    *,
    with_images_only: bool = False,
    force: bool = False,
) -> Export:
    """Write the three files; `force` replaces others' files of these names.

    Raises SettingsError for a name that is no word, DataError where no row can be used.
    """
    _check_name(name)
    for path in (out / f"{name}.yaml", out / "utils.py", out / f"{name}.parquet"):
        is_ours = path.suffix == ".parquet" and is_marked(out / f"{name}.yaml")
        claim_output(path, (path.suffix,), _inputs(dataset), force=force, is_ours=is_ours)
    export = Export()
    lines = (_to_line(*asked) for asked in _questions(dataset, export, with_images_only=with_images_only))
    parquet = out / f"{name}.parquet"
    with (
        write_atomically(parquet) as file,
        pq.ParquetWriter(file, _SCHEMA, compression="none") as writer,  # PNG is compressed already
    ):
        while some := list(islice(lines, _LINES_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(some, schema=_SCHEMA))
    write_text_atomically(out / "utils.py", files(__package__).joinpath("measures.py").read_text(encoding="utf-8"))
    task = _TASK.format(
        name=json.dumps(name),
        parquet=json.dumps(str(parquet.absolute()), ensure_ascii=False),
        max_new_tokens=max_new_tokens,
        metrics="".join(_METRIC.format(*pair) for pair in _AGGREGATIONS.items()),
    )
    write_text_atomically(out / f"{name}.yaml", task)
    return export


def _to_line(record: Record, asked: AskedTurn, images: list[bytes]) -> dict[str, Any]:
    """A question for lmms-eval, with the conversation before the answer."""
    messages = [
        {
            "role": turn.role,
            "content": [{"type": "image"} if part is None else {"type": "text", "text": part} for part in turn.parts],
        }
        for turn in record.turns[: asked.stop - 1]
    ]
    return {
        "row": record.row,
        "turn": asked.turn,
        "source": record.source,
        "messages": json.dumps(messages, ensure_ascii=False),
        "images": images,
        "answer": asked.reference,
    }


def export_vlmevalkit(dataset: Rows, out: Path, name: str, *, force: bool = False) -> Export:
    """Write the table; `force` replaces one that is there.

    Raises SettingsError for a name that is no word, DataError where no row can be used.
    """
    _check_name(name)
    claim_output(out / f"{name}.tsv", (".tsv",), _inputs(dataset), force=force)
    export = Export()
    with write_atomically(out / f"{name}.tsv") as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        writer.writerow(("index", "image", "question", "answer", "category"))
        for record, asked, images in _questions(dataset, export, with_images_only=True, first_only=True):
            encoded = [base64.b64encode(image).decode("ascii") for image in images]
            image = encoded[0] if len(encoded) == 1 else json.dumps(encoded)
            writer.writerow((record.row, image, asked.question, asked.reference, record.source))
        text.flush()
        text.detach()
    return export


def _inputs(dataset: Rows) -> list[Path]:
    return dataset.inputs if isinstance(dataset, FileRows) else []


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise SettingsError(f"name={name!r}: expected letters, digits and underscores")


def _questions(
    dataset: Rows, export: Export, *, with_images_only: bool, first_only: bool = False
) -> Iterator[Question]:
    """Every question of the data, counted in `export`; rows that can't be used are put there with the reason.

    first_only: of each row the first question alone, if an image comes before its answer. Raises DataError in the end
    where there was no question.
    """
    for record in dataset:
        try:
            if record.error is not None:
                raise record.error
            if with_images_only and not record.images:
                raise RowError(ReasonCode.NOT_EXPRESSIBLE, "the row has no image")
            asked_for = asked_turns(record)[: 1 if first_only else None]
            if first_only and not asked_for[0].n_images:
                raise RowError(ReasonCode.NOT_EXPRESSIBLE, "no image comes before the row's first answer")
            images = [_to_png(dataset.load_image(reference)) for reference in record.images]
        except RowError as error:
            export.left_out.append((record.row, error.code, error.detail))
            continue
        export.n_items += len(asked_for)
        yield from ((record, asked, images[: asked.n_images]) for asked in asked_for)
    if not export.n_items:
        reason = export.left_out[0][2] if export.left_out else "there are none"
        raise DataError(f"no row can be exported; the first reason is: {reason}")


def _to_png(image: Image) -> bytes:
    """The same pixels that `evaluate` shows: upright, RGB."""
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()

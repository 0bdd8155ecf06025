"""A test set as a task of lmms-eval: OUT/NAME.yaml, OUT/utils.py and OUT/NAME.parquet. No torch here.

lmms-eval --include_path OUT --tasks NAME --model ... --log_samples --output_path ...
"""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.evaluating.exporting.items import Export, Item, iter_items
from delta_attnmask.evaluating.turns import Turns
from delta_attnmask.reading.dataset import Dataset
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
_IMPORT = "from delta_attnmask.evaluating.normalising import normalise\n"
_NAME = re.compile(r"[A-Za-z0-9_]+")


def export_lmms_eval(
    dataset: Dataset,
    out: Path,
    name: str,
    turns: Turns = "all",
    max_new_tokens: int = 512,
    *,
    with_images_only: bool = False,
) -> Export:
    """Write the three files. Raises SettingsError for a name that is no word, DataError where no row can be used."""
    check_name(name)
    left_out: dict[int, str] = {}
    n_items = 0
    with (
        write_atomically(out / f"{name}.parquet") as file,
        pq.ParquetWriter(file, _SCHEMA, compression="none") as writer,  # PNG is compressed already
    ):
        group: list[Item] = []
        for item in iter_items(dataset, turns, left_out, with_images_only=with_images_only):
            group.append(item)
            n_items += 1
            if len(group) == _LINES_PER_GROUP:
                writer.write_table(_to_table(group))
                group = []
        writer.write_table(_to_table(group))
        require_items(n_items, left_out)
    write_text_atomically(out / "utils.py", make_task_code())
    write_text_atomically(out / f"{name}.yaml", _to_yaml(name, (out / f"{name}.parquet").absolute(), max_new_tokens))
    return Export(n_items, left_out)


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingsError(f"name={name!r}: expected letters, digits and underscores")


def require_items(n_items: int, left_out: dict[int, str]) -> None:
    if not n_items:
        reason = next(iter(left_out.values()), "there are none")
        raise DataError(f"no row can be exported; the first reason is: {reason}")


def make_task_code() -> str:
    """The task's utils.py: the normalisation, and behind it `lmms_task` without its import of that."""
    from importlib.resources import files

    normalising = files("delta_attnmask.evaluating").joinpath("normalising.py").read_text(encoding="utf-8")
    task = files("delta_attnmask.evaluating.exporting").joinpath("lmms_task.py").read_text(encoding="utf-8")
    return normalising + "\n\n" + task.replace(_IMPORT, "")


def _to_table(items: list[Item]) -> pa.Table:
    lines = [
        {
            "row": item.record.row,
            "turn": item.asked.turn,
            "source": item.record.source,
            "messages": json.dumps(item.messages, ensure_ascii=False),
            "images": list(item.images),
            "answer": item.asked.reference,
        }
        for item in items
    ]
    return pa.Table.from_pylist(lines, schema=_SCHEMA)


def _to_yaml(name: str, parquet: Path, max_new_tokens: int) -> str:
    """Written by hand: the loader's `!function` tag is no plain YAML. JSON strings are YAML strings."""
    lines = [
        f"task: {json.dumps(name)}",
        "dataset_path: parquet",
        "dataset_kwargs:",
        "  data_files:",
        f"    test: {json.dumps(str(parquet), ensure_ascii=False)}",
        "test_split: test",
        "output_type: generate_until",
        *(f"{step}: !function utils.{step}" for step in ("doc_to_visual", "doc_to_text", "doc_to_messages")),
        'doc_to_target: "answer"',
        "process_results: !function utils.process_results",
        "generation_kwargs:",
        f"  max_new_tokens: {max_new_tokens}",
        "  temperature: 0",
        "  do_sample: false",
        "metric_list:",
    ]
    for metric, aggregation in (
        ("exact", "pooled"),
        ("normalised", "pooled"),
        ("exact_by_source", "mean_over_sources"),
        ("normalised_by_source", "mean_over_sources"),
    ):
        lines += [
            f"  - metric: {metric}",
            f"    aggregation: !function utils.{aggregation}",
            "    higher_is_better: true",
        ]
    return "\n".join([*lines, "metadata:", "  version: 1.0", ""])

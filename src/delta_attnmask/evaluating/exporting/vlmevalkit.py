"""A test set as a table of VLMEvalKit: OUT/NAME.tsv with index, image, question, answer and category. No torch here.

It takes one question a line, without a conversation before it: of each row the first answer is asked for, and rows
without an image before it, which it skips without a word, are left out here with a reason.
"""

import base64
import csv
import json
from io import TextIOWrapper
from pathlib import Path

from delta_attnmask.evaluating.exporting.items import Export, Item, iter_items
from delta_attnmask.evaluating.exporting.lmms_eval import check_name, require_items
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.storage import write_atomically

_COLUMNS = ("index", "image", "question", "answer", "category")


def export_vlmevalkit(dataset: Dataset, out: Path, name: str) -> Export:
    """Write the table. Raises SettingsError for a name that is no word, DataError where no row can be used."""
    check_name(name)
    left_out: dict[int, str] = {}
    n_items = 0
    with write_atomically(out / f"{name}.tsv") as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        writer.writerow(_COLUMNS)
        for item in iter_items(dataset, "all", left_out, with_images_only=True):
            if item.asked.turn > 0:
                continue
            if not item.images:
                left_out[item.record.row] = "no image stands before the row's first answer"
                continue
            writer.writerow(_to_line(item))
            n_items += 1
        require_items(n_items, left_out)
        text.flush()
        text.detach()
    return Export(n_items, left_out)


def _to_line(item: Item) -> list[str]:
    """Several images are written as a list; one as its base64 alone."""
    encoded = [base64.b64encode(image).decode("ascii") for image in item.images]
    image = encoded[0] if len(encoded) == 1 else json.dumps(encoded)
    return [str(item.record.row), image, item.asked.question, item.asked.reference, item.record.source]

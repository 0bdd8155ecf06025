"""Rows of any format to the format of a trainer, image for image and turn for turn. No torch here."""

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import ReasonCode, RowError, SettingsError
from delta_attnmask.exporting.files import ConvertedRow, find_ending, name_members, write_rows
from delta_attnmask.locations import FileStore
from delta_attnmask.reading.formats import Target
from delta_attnmask.reading.llama_factory import OPENAI_ENTRY, add_entry
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import ImageRef, Record
from delta_attnmask.storage import write_atomically

ENDINGS = {"list": ".json", "lines": ".jsonl", "parquet": ".parquet", "tar": ".tar"}


@dataclass
class Converted:
    """What was written. refused: rows the target can't express, with the reason. hint: how the trainer loads it."""

    n_written: int = 0
    refused: dict[int, str] = field(default_factory=dict)
    hint: str = ""


def convert_rows(dataset: Rows, rows: NDArray[np.int64], target: Target, out: Path) -> Converted:
    """Write rows, in the order given, to `out`; a row that can't be said without loss is left out and reported.

    Raises SettingsError where no row can be written so, ArtifactError where writing fails.
    """
    done, places = Converted(), ImagePlaces(dataset, out)
    columns = ("prompt", "completion") if target.format.spec == "prompt-completion" else ("messages",)
    write_rows(target.file, out, _convert_each(dataset, rows, target, places, done), columns)
    done.hint = _register(target.name, out, places.root, columns)
    return done


def _convert_each(
    dataset: Rows, rows: NDArray[np.int64], target: Target, places: "ImagePlaces", done: Converted
) -> Iterator[ConvertedRow]:
    """The rows that the target can express; `done` counts them, and says why the others are left out."""
    for record in pick_records(dataset, rows):
        try:
            fields, images = _convert(record, dataset, target, places)
        except RowError as error:
            done.refused[record.row] = str(error)
            continue
        done.n_written += 1
        yield record.row, fields, images
    if not done.n_written:
        reason = next(iter(done.refused.values()), "there is none")
        raise SettingsError(f"no row could be written as {target.name}; the first: {reason}")


def pick_records(dataset: Rows, rows: NDArray[np.int64]) -> Iterator[Record]:
    """The records of rows, in the order given: in one pass if that is the input's, else one by one."""
    if np.array_equal(rows, np.sort(rows)):
        wanted = set(rows.tolist())
        yield from (record for record in dataset.records(0, max(wanted, default=-1) + 1) if record.row in wanted)
    else:
        for row in rows.tolist():
            yield from dataset.records(row, row + 1)


def _convert(
    record: Record, dataset: Rows, target: Target, places: "ImagePlaces"
) -> tuple[dict[str, Any], list[bytes]]:
    if record.error:
        raise record.error
    if not target.holds_images:
        return target.convert(record, [places.place(ref) for ref in record.images]), []
    images = [dataset.read_image_bytes(ref) for ref in record.images]
    if target.file == "tar":
        return target.convert(record, name_members(record.row, images)), images
    return target.convert(record, [ImageRef(place=(record.row, n)) for n in range(len(images))]), images


class ImagePlaces:
    """Where a converted data set finds its images: where they are, or beside it if the data held them.

    root: the folder that references are below; others are absolute. It is the data's own image folder if there is
    just one, else OUT.images, for images that were stored in the data or at a URL.
    """

    def __init__(self, dataset: Rows, out: Path) -> None:
        self._dataset = dataset
        self._unpacked = out.absolute().with_name(f"{out.name}.images")
        roots = {part.images_root for part in dataset.parts if isinstance(part.images_root, Path)}
        self.root = roots.pop() if len(roots) == 1 else self._unpacked

    def place(self, ref: ImageRef) -> str:
        """The path of an image as a trainer needs it; RowError where there can't be one."""
        root = self._dataset.part_of(ref).images_root
        if not ref.path or isinstance(root, FileStore):
            return self._below_root(self._unpack(self._dataset.read_image_bytes(ref)))
        if root is None:
            raise RowError(ReasonCode.NO_IMAGE_FOLDER, f"image {ref.path!r:.80}: no image folder was given")
        return ref.path if root == self.root else self._below_root(root / ref.path)

    def _unpack(self, data: bytes) -> Path:
        name = sha256(data).hexdigest()
        path = self._unpacked / name[:2] / f"{name}.{find_ending(data)}"
        if not path.exists():
            with write_atomically(path) as file:
                file.write(data)
        return path

    def _below_root(self, path: Path) -> str:
        return os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path)


def _register(target: str, out: Path, images: Path, columns: tuple[str, ...]) -> str:
    """Register the file `out` where the trainer has a place for that, and return a line to copy."""
    file, folder, root = (shlex.quote(str(path)) for path in (out.absolute(), out.absolute().parent, images))
    load = f'load_dataset("parquet", data_files={str(out.absolute())!r}, split="train")'
    if target == "llama-factory":
        name = add_entry(out, OPENAI_ENTRY)
        return (
            f"llamafactory-cli train --stage sft --do_train --model_name_or_path MODEL --template TEMPLATE "
            f"--dataset {shlex.quote(name)} --dataset_dir {folder} --media_dir {root} --output_dir OUT"
        )
    loss = "" if "completion" in columns else ", assistant_only_loss=True"
    lines = {
        "llava": f"--data_path {file} --image_folder {root}",
        "messages": f"images are below {root}",
        "ms-swift": f"ROOT_IMAGE_DIR={root} swift sft --model MODEL --dataset {file}",
        "trl": f"{load}  # with SFTConfig(max_length=None{loss})",
        "parquet": load,
        "webdataset": f"webdataset.WebDataset({str(out.absolute())!r}).decode('pil')",
    }
    return lines[target]

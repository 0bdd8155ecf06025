"""`delta-attnmask check`: validate a data set without a model."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress

from delta_attnmask.cli.outcome import print_faults
from delta_attnmask.cli.terminal import print_table, printable
from delta_attnmask.cli.understood import shorten, show_text
from delta_attnmask.reading.formats import format_name
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reading.survey import Survey, survey

_N_PARTS = 20
_ALWAYS = ("file", "rows", "is", "format")
_N_LOOKED_AT = 8
_N_CHARS = 300


def check(
    *,
    data: Annotated[list[Path], Parameter(consume_multiple=True)],
    images: Path | None = None,
    format: str | None = None,
    limit: int | None = None,
    no_images: Annotated[bool, Parameter(negative="")] = False,
    allow_outside: Annotated[bool, Parameter(negative="")] = False,
    strict: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Validate a data set without a model.

    Exit code 0 if any row can be used (with --strict: if all can, else 1), 2 if the file or none of its rows can.

    Parameters
    ----------
    data
        Files (JSON, JSONL, parquet, arrow, WebDataset tars), a pattern such as 'shards/*.tar', a folder, or a mixture
        file in JSON or YAML.
    images
        Folder below which the image paths are looked up.
    format
        How a row says its conversation: llava (also qwen-vl, sharegpt), messages (also openai), prompt-completion,
        query-response, alpaca, cauldron, minigpt4 or minigpt4:QUESTION, llama-factory or llama-factory:ENTRY; ms-swift
        and trl recognise among what these trainers read. Recognised by the content if not given, and shown with the
        first row, as it was understood.
    limit
        Look at that many rows from the start.
    no_images
        Don't open the images.
    allow_outside
        Follow absolute paths, and links that leave the image folder.
    strict
        Exit with 1 if any row fails.
    """
    dataset = FileRows(data, images, format=format, limit=limit, image_limits=ImageLimits(allow_outside=allow_outside))
    with Progress(
        console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal
    ) as progress:
        task = progress.add_task("checking", total=dataset.n_rows)
        found = survey(dataset, load_images=not no_images, on_row=lambda: progress.advance(task))
    _print_survey(found, dataset)
    if not found.n_ok:
        return 2
    return 1 if strict and found.n_failed else 0


def _print_parts(dataset: FileRows) -> None:
    """Every file, and what it was taken for; columns that say the same of all are left out."""
    parts = list(zip(dataset.parts[:_N_PARTS], dataset.count_rows(), strict=False))
    if len(dataset.parts) == 1:
        (part, n_rows), *_ = parts
        images = "" if part.images_root is None else f", images below {part.images_root}"
        print(printable(f"{part.path}: {n_rows:,} rows, {part.container.kind}, read as {part.format.spec}{images}"))
        return
    columns: dict[str, list[object]] = {
        "file": [part.path for part, _ in parts],
        "rows": [n_rows for _, n_rows in parts],
        "is": [part.container.kind for part, _ in parts],
        "format": [format_name(part.format) for part, _ in parts],
        "images": [part.images_root or "-" for part, _ in parts],
        "source": [part.name or "-" for part, _ in parts],
        "weight": [part.weight for part, _ in parts],
    }
    told = {name: values for name, values in columns.items() if name in _ALWAYS or len(set(values)) > 1}
    print_table(f"{len(dataset.parts):,} files", [*told], list(zip(*told.values(), strict=True)))
    if len(dataset.parts) > _N_PARTS:
        print(f"  and {len(dataset.parts) - _N_PARTS:,} more files")


def _print_first(dataset: FileRows) -> None:
    """The first good row of each format, so that a wrong guess is seen at once."""
    shown = set()
    for number, part in enumerate(dataset.parts):
        start = dataset.starts[number]
        if part.format.spec in shown or start >= dataset.n_rows:
            continue
        shown.add(part.format.spec)
        records = list(dataset.records(start, start + _N_LOOKED_AT))
        record = next((record for record in records if not record.reason), records[0])
        lines = [
            ("source", record.source or "(none)"),
            ("images", ", ".join(shorten(str(image), _N_CHARS) for image in record.images) or "none"),
        ]
        lines += [(str(turn.role), shorten(show_text(turn), _N_CHARS)) for turn in record.turns]
        lines += [("failed", record.reason)] if record.reason else []
        print_table(f"Row {record.row} as {format_name(part.format)}", ["who", "says"], lines)


def _print_survey(found: Survey, dataset: FileRows) -> None:
    _print_parts(dataset)
    _print_first(dataset)
    overview = {
        "rows": found.n_rows,
        "ok": found.n_ok,
        "failed": found.n_failed,
        "text only": found.n_text_only,
        "images": found.n_images,
        "duplicates": found.n_duplicates,
    } | ({"seconds": round(found.elapsed_s)} if found.elapsed_s >= 1 else {})
    print_table("All rows", ["what", "count"], list(overview.items()))
    print_table("Sources", ["source", "rows"], [(name or "(none)", n) for name, n in found.sources.most_common(20)])
    print_table("Turns", ["turns", "rows"], sorted(found.turns.items()))
    print_faults(found.faults)

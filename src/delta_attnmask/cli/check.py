"""`delta-attnmask check`: validate a data set without a model."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress

from delta_attnmask.cli.tables import print_table
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.survey import Survey, survey


def check(
    *,
    data: Path,
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
        JSON list or JSONL file of conversations.
    images
        Folder below which the image paths are looked up.
    format
        Name of the format; recognised by the content if not given.
    limit
        Look at that many rows from the start.
    no_images
        Don't open the images.
    allow_outside
        Follow absolute paths, and links that leave the image folder.
    strict
        Exit with 1 if any row fails.
    """
    dataset = Dataset(data, images, format=format, limit=limit, image_limits=ImageLimits(allow_outside=allow_outside))
    with Progress(
        console=Console(stderr=True), transient=True, disable=not Console(stderr=True).is_terminal
    ) as progress:
        task = progress.add_task("checking", total=dataset.n_rows)
        found = survey(dataset, load_images=not no_images, on_row=lambda: progress.advance(task))
    _print_survey(found, dataset)
    if not found.n_ok:
        return 2
    return 1 if strict and found.n_failed else 0


def _print_survey(found: Survey, dataset: Dataset) -> None:
    overview = {
        "format": dataset.format_name,
        "rows": found.n_rows,
        "ok": found.n_ok,
        "failed": found.n_failed,
        "text only": found.n_text_only,
        "images": found.n_images,
        "duplicates": found.n_duplicates,
        "seconds": round(found.elapsed_s, 1),
    }
    print_table(str(dataset.path), ["what", "count"], list(overview.items()))
    print_table("Sources", ["source", "rows"], [(name or "(none)", n) for name, n in found.sources.most_common(20)])
    print_table("Turns", ["turns", "rows"], sorted(found.turns.items()))
    if found.faults:
        faults = sorted(found.faults.values(), key=lambda fault: -fault.n_rows)
        rows = [(fault.n_rows, ", ".join(map(str, fault.rows)), fault.example) for fault in faults]
        print_table("Failed rows, by kind", ["rows", "first", "reason of the first"], rows)

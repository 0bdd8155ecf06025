"""`delta-attnmask check`: validate a data set without a model."""

from rich.console import Console
from rich.progress import Progress

from delta_attnmask.cli.options import DataOptions
from delta_attnmask.cli.terminal import N_FILES, print_faults, print_table, printable, shorten, show_text
from delta_attnmask.reading.formats import format_name
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.reading.survey import Survey, survey

_ALWAYS = ("file", "rows", "is", "format")
_N_TRIED = 8  # rows of a format, to find one that can be used
_N_CHARS = 300


def check(*, rows: DataOptions, no_images: bool = False, strict: bool = False) -> int:
    """Validate a data set without a model, and show the first row of each format as it is understood.

    Formats: llava (also qwen-vl, sharegpt), messages (also openai), prompt-completion, query-response, alpaca,
    cauldron, minigpt4 or minigpt4:QUESTION, llama-factory or llama-factory:ENTRY; ms-swift and trl recognise what these
    trainers read.

    Exit code 0 if any row can be used (with --strict: if all can, else 1), 2 if the file or none of its rows can.

    Args:
        no_images: Don't open the images.
        strict: Exit with 1 if any row fails.
    """
    dataset = rows.open()
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("checking", total=dataset.n_rows)
        found = survey(dataset, load_images=not no_images, on_row=lambda: progress.advance(task))
    _print_files(dataset)
    _print_first_rows(dataset)
    _print_counts(found)
    if not found.n_ok:
        return 2
    return 1 if strict and found.n_failed else 0


def _print_files(dataset: FileRows) -> None:
    """Every file, and how it is read; columns with one value for all are left out."""
    parts = list(zip(dataset.parts[:N_FILES], dataset.count_rows(), strict=False))
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
    shown = {name: values for name, values in columns.items() if name in _ALWAYS or len(set(values)) > 1}
    print_table(f"{len(dataset.parts):,} files", [*shown], list(zip(*shown.values(), strict=True)))
    if len(dataset.parts) > N_FILES:
        print(f"  and {len(dataset.parts) - N_FILES:,} more files")


def _print_first_rows(dataset: FileRows) -> None:
    """The first good row of each format, so that a wrong guess is seen at once."""
    shown = set()
    for number, part in enumerate(dataset.parts):
        start = dataset.starts[number]
        if part.format.spec in shown or start >= dataset.n_rows:
            continue
        shown.add(part.format.spec)
        records = list(dataset.records(start, start + _N_TRIED))
        record = next((record for record in records if not record.reason), records[0])
        lines = [
            ("source", record.source or "(none)"),
            ("images", ", ".join(shorten(str(image), _N_CHARS) for image in record.images) or "none"),
        ]
        lines += [(str(turn.role), shorten(show_text(turn), _N_CHARS)) for turn in record.turns]
        lines += [("failed", record.reason)] if record.reason else []
        print_table(f"Row {record.row} as {format_name(part.format)}", ["who", "says"], lines)


def _print_counts(found: Survey) -> None:
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

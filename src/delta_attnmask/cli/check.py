"""`delta-attnmask check`: validate a data set without a model."""

from rich.console import Console
from rich.progress import Progress

from delta_attnmask.cli.options import DataOptions
from delta_attnmask.cli.terminal import print_data, print_faults, print_table
from delta_attnmask.reading.survey import survey


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
    print_data(dataset, in_full=True)
    overview = {
        "rows": found.n_rows,
        "ok": found.n_ok,
        "failed": found.n_failed,
        "text only": found.n_text_only,
        "images": found.n_images,
        "duplicates": found.n_duplicates,
    } | ({"seconds": round(found.elapsed_s)} if found.elapsed_s >= 1 else {})
    print_table("All rows", ["what", "count"], overview.items())
    print_table("Sources", ["source", "rows"], [(name or "(none)", n) for name, n in found.sources.most_common(20)])
    print_table("Turns", ["turns", "rows"], sorted(found.turns.items()))
    print_faults(found.faults)
    if not found.n_ok:
        return 2
    return 1 if strict and found.n_failed else 0

"""`delta-attnmask check`: validate a data set without a model."""

from rich.console import Console
from rich.progress import Progress

from delta_attnmask.cli.options import DataOptions, Force, Json, claim_json, write_json
from delta_attnmask.cli.terminal import print_data, print_faults, print_table, too_many_failed
from delta_attnmask.reading.survey import survey
from delta_attnmask.settings import MAX_FAILED
from delta_attnmask.training.plan import Share


def check(
    *,
    rows: DataOptions,
    no_images: bool = False,
    max_failed: Share = MAX_FAILED,
    json_file: Json = None,
    force: Force = False,
) -> int:
    """Validate a data set without a model, and show the first row of each format as it is understood.

    Formats: llava (also qwen-vl, sharegpt), messages (also openai), prompt-completion, query-response, alpaca,
    cauldron, minigpt4 or minigpt4:QUESTION, llama-factory or llama-factory:ENTRY; ms-swift and trl recognise what these
    trainers read.

    The file of --json lists every row that can't be used, and every duplicate: rows equal but for their ids.

    Exit code 0 if all rows but a few can be used, 1 if more than --max-failed can't, 2 if the file or none of its rows
    can.

    Args:
        no_images: Don't open the images.
        max_failed: Share of the rows that may fail, such as 5%.
    """
    dataset = rows.open()
    claim_json(json_file, dataset.inputs, force=force)
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
        "duplicates": len(found.duplicates),
    } | ({"seconds": round(found.elapsed_s)} if found.elapsed_s >= 1 else {})
    print_table("All rows", ["what", "count"], overview.items())
    print_table("Sources", ["source", "rows"], [(name or "(none)", n) for name, n in found.sources.most_common(20)])
    print_table("Turns", ["turns", "rows"], sorted(found.turns.items()))
    if found.unread_keys:
        title = "Keys that nothing reads (in the first 1,000 rows of each file)"
        print_table(title, ["key", "rows"], found.unread_keys.most_common(20))
    print_faults(found.faults)
    write_json(json_file, found.to_dict())
    if not found.n_ok:
        return 2
    return too_many_failed(found.n_failed, found.n_rows, max_failed)

"""`delta-attnmask select`: write the best rows of a scored data set."""

from pathlib import Path

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.cli.tables import print_table
from delta_attnmask.selecting.export import Order, count_sources, export_selection
from delta_attnmask.selecting.select import select_rows
from delta_attnmask.selection import Budget


def select(
    run: Path, /, *, keep: str, out: Path, by: str = "delta", order: Order = "input", data: Path | None = None
) -> None:
    """Write the best rows of a scored data set, in the input's own format.

    Failed rows are never kept. Beside FILE, FILE.selection.json says what was kept and why.

    Parameters
    ----------
    run
        Folder that `delta-attnmask score --out` has made.
    keep
        How much: a share of the rows that have a score, such as 20%, or a number of rows, such as 500.
    out
        File to write.
    by
        Column to rank by; higher is better.
    order
        Order of the rows in the file: as in the input, or the best first.
    data
        The input file, if it is no longer where it was scored.
    """
    folder = RunFolder.open(run)
    scores = folder.read_scores()
    selection = select_rows(scores, Budget.parse(keep), column=by)
    note = export_selection(selection, folder, scores, out, data=data, order=order)
    counts = count_sources(selection, scores)
    rows = [(name or "(none)", *counts[name].values()) for name in counts]
    print_table(
        f"Kept {len(selection):,} of {folder.manifest.n_rows:,} rows", ["source", "kept", "left", "failed"], rows
    )
    print(f"Wrote {out} and {note}")

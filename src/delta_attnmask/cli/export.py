"""`delta-attnmask export`: write a scored data set for a trainer, or with its scores."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from delta_attnmask.cli.options import Force, RunDataOptions
from delta_attnmask.cli.terminal import printable
from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.conversion import Converted
from delta_attnmask.exporting.joined import export_scores
from delta_attnmask.exporting.run_export import export_rows, open_scored
from delta_attnmask.reading.formats import TargetName
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.note import Order, read_note

_N_SHOWN = 5


def export(
    run: Path,
    /,
    *,
    out: Path,
    selection: Path | None = None,
    to: TargetName | None = None,
    scores: bool = False,
    order: Order = "input",
    moved: RunDataOptions = RunDataOptions(),
    force: Force = False,
) -> None:
    """Write a scored data set, or the part that was selected, for a trainer; or all of it with its scores.

    Args:
        run: Run folder that `score` wrote.
        out: File to write: .json for llava and llama-factory, .jsonl for messages and ms-swift, .parquet for trl and
            parquet, .tar for webdataset. Without --to the input's own kind, or a folder if the data are several files.
            With --scores a .parquet file.
        selection: A file that `select` wrote, or its note; if not given, every row that has a score.
        to: Format to write; if not given, the input's own, unchanged. llama-factory is also entered in the
            dataset_info.json beside the file.
        scores: Write every row, failed ones too, with the columns of its scores.
        order: Order of the rows: as in the input, or as in the selection, the best first.
    """
    folder = RunFolder.open(run)
    if scores:
        if selection is not None or to is not None or order != "input":
            raise SettingsError("--scores writes every row in the input's order: leave out --selection, --to, --order")
        n_rows = export_scores(open_scored(folder, moved.place), folder, out, force=force)
        print(printable(f"Wrote {n_rows:,} rows with their scores to {out}"))
        return
    if order == "score" and selection is None:
        raise SettingsError("order='score': name the selection whose order is meant with --selection")
    table = folder.read_scores(["row", "status", "n_turns"])
    rows = table["row"].filter(pc.equal(table["status"], "ok")).to_numpy()
    if selection is not None:
        rows = read_note(selection, folder).indices
    rows = rows if order == "score" else np.sort(rows)
    data = open_scored(folder, moved.place, with_images=to is not None)
    done = export_rows(data, rows, out, to=to, scores=table, force=force)
    print(printable(f"Wrote {done.n_written:,} rows to {out}"))
    print_converted(done)


def print_converted(done: Converted) -> None:
    """Print what was left out, and how to point the trainer at the file."""
    if done.refused:
        print(f"WARNING: {len(done.refused):,} rows don't fit this format and were left out:")
        for row, reason in list(done.refused.items())[:_N_SHOWN]:
            print(printable(f"  row {row}: {reason}"))
    if done.hint:
        print(printable(f"For the trainer: {done.hint}"))

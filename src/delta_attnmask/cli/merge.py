"""`delta-attnmask merge`: check a run that several processes made, and put its files together."""

from pathlib import Path

from delta_attnmask.progress import show_progress
from delta_attnmask.runs import merge_run


def merge(run: Path, /) -> None:
    """Check that every row of a run is there exactly once, mark it complete, and merge its files into few large ones.

    For runs made with --shard, and to make large runs of any kind faster to read. Rerun the same command to resume.

    Args:
        run: Run folder that `score` wrote.
    """
    with show_progress("merging") as advance:
        done = merge_run(run, lambda n_done, n_rows: advance(n_done, n_rows, 0))
    where = done.location
    n_files = len(done.unit_files())
    print(
        f"{where}: {done.manifest.n_rows} rows, each once, in {n_files} file{'s' * (n_files != 1)}; "
        f"next: delta-attnmask select {where} --keep 20% --out FILE"
    )

"""What came of the rows, told at the end: how many failed, why, and how to fix it."""

import sys

from delta_attnmask.cli.terminal import print_table
from delta_attnmask.reading.faults import Faults, commonest, count_faults, find_fix
from delta_attnmask.runs import RunFolder

_N_KINDS = 20


def print_faults(faults: Faults) -> None:
    """The commonest kinds of failed rows as a table, and how to fix them; nothing where no row failed."""
    if not faults:
        return
    ordered = commonest(faults)
    shown = [(fault.n_rows, ", ".join(map(str, fault.rows)), fault.example) for fault in ordered[:_N_KINDS]]
    print_table("Failed rows, by kind", ["rows", "first", "reason of the first"], shown)
    if len(ordered) > _N_KINDS:
        print(f"  and {len(ordered) - _N_KINDS:,} more kinds")
    for fix in dict.fromkeys(find_fix(fault.code) for fault in ordered):
        if fix:
            print(f"Fix: {fix}")


def tell_outcome(run: RunFolder, n_before: int) -> int:
    """Print what a run holds, of a shard its own part, and what comes next; the exit code.

    n_before: rows that earlier starts had done.
    """
    n_rows = sum(len(run.unit_rows(unit)) for unit in range(run.n_units) if run.shard.owns(unit))
    if not n_rows and not run.shard.is_whole:  # more shards than units: those without one are done, too
        print(f"{run.location}: no unit of rows falls to shard {run.shard.index}/{run.shard.count}")
        _tell_next(run)
        return 0
    failed = run.read_failed()
    n_failed = len(failed)
    whose = "" if run.shard.is_whole else f"shard {run.shard.index}/{run.shard.count} is done, "
    print(f"{run.location}: {whose}{n_rows - n_failed:,} scored, {n_failed:,} failed")
    columns = (failed[name].to_pylist() for name in ("row", "reason_code", "reason"))
    print_faults(count_faults(zip(*columns, strict=True)))
    if n_failed and n_before:
        print(f"{n_before:,} rows were done by an earlier start; those that failed stay so: try them in another --out")
    if 2 * n_failed > n_rows:
        print("More rows failed than were scored: fix that first")
    if n_rows == n_failed:
        print(f"delta-attnmask: {run.location}: no row could be scored", file=sys.stderr)
        return 2
    _tell_next(run)
    return 0


def _tell_next(run: RunFolder) -> None:
    following = f"select {run.location} --keep 20% --out FILE"
    if not run.shard.is_whole:
        following = f"merge {run.location}, after all shards"
    print(f"Next: delta-attnmask {following}")

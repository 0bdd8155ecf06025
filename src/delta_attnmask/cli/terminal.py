"""What commands print: tables, what the data was taken for, and which rows failed.

Text from data sets is never taken for markup or terminal commands.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from delta_attnmask.calibration import Verdict
from delta_attnmask.progress import print_note
from delta_attnmask.reading.faults import Faults, commonest, count_faults, find_fix
from delta_attnmask.reading.formats import read_record
from delta_attnmask.reading.rows import FilePart, FileRows
from delta_attnmask.records import Record
from delta_attnmask.runs import RunFolder
from delta_attnmask.settings import MAX_FAILED

SAYS_NO = 3  # the exit code with --strict
_N_FILES = 20  # of a data set that are listed
_N_FAULTS = 20
_N_TRIED = 8  # rows of a file, to find one that can be used


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout: drawn on a terminal, as plain lines elsewhere."""
    values = [list(row) for row in rows]
    cells = [[_to_text(value) for value in row] for row in values]
    console = Console()
    if not console.is_terminal:
        print("\n".join([f"{printable(title)}:", *(_to_line(columns, row) for row in cells)]))
        return
    console.print(Text(printable(title), style="italic"), soft_wrap=True)  # whole, also where it is a long path
    table = Table()
    for idx, column in enumerate(columns):
        is_numeric = all(isinstance(row[idx], int | float | None) for row in values)
        table.add_column(Text(column), justify="right" if is_numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console.print(table)


def printable(text: str) -> str:
    """Escape what a terminal would obey or hide: control characters, escape sequences, direction marks."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def print_check(line: str) -> None:
    """What the self-check found, to stderr."""
    print_note(f"model: {line}")


def with_interval(estimate: dict[str, float] | None, sign: str = "", *, is_share: bool = True) -> str | None:
    """A value and its interval, shares in per cent; sign: "+" also marks what is above 0."""
    if estimate is None:
        return None
    if not is_share:
        value, low, high = (format(estimate[name], f"{sign}.4f") for name in ("value", "low", "high"))
        return f"{value} ({low} to {high})"
    value, low, high = (format(100 * estimate[name], f"{sign}.1f") for name in ("value", "low", "high"))
    return f"{value}% ({low} to {high})"


def print_data(dataset: FileRows, *, in_full: bool = False) -> None:
    """Print how each file is read, with one row of each format, so that a wrong guess is seen at once.

    in_full: to stdout, with counts, for which all files are read; else in short to stderr, after a few rows of each.
    """
    n_rows = dataset.count_rows() if in_full else []
    lines, shown = list[str](), set[str]()
    for number, part in enumerate(dataset.parts[:_N_FILES]):
        line, spec = f"{part.path}: {part.container.kind}, read as {part.format.spec}", part.format.spec
        if in_full:
            facts = {"source": part.name, "weight": part.weight if part.weight != 1 else "", "images": part.images_root}
            line += (
                "".join(f", {name} {value}" for name, value in facts.items() if value) + f", {n_rows[number]:,} rows"
            )
        lines.append(line)
        if spec not in shown:
            shown.add(spec)
            lines += _describe(_first_record(part), in_full)
    if more := dataset.parts[_N_FILES:]:
        lines.append(f"and {len(more):,} more files, read as {', '.join(sorted({part.format.spec for part in more}))}")
    for line in lines:
        print(printable(line)) if in_full else print(f"data: {printable(line)}", file=sys.stderr)


def print_faults(faults: Faults) -> None:
    """The commonest kinds of failed rows as a table, and how to fix them; nothing where no row failed."""
    if not faults:
        return
    ordered = commonest(faults)
    shown = [(fault.n_rows, ", ".join(map(str, fault.rows)), fault.example) for fault in ordered[:_N_FAULTS]]
    print_table("Failed rows, by kind", ["rows", "first", "reason of the first"], shown)
    if len(ordered) > _N_FAULTS:
        print(f"  and {len(ordered) - _N_FAULTS:,} more kinds")
    for fix in dict.fromkeys(find_fix(fault.code) for fault in ordered):
        if fix:
            print(f"Fix: {fix}")


def too_many_failed(n_failed: int, n_rows: int, max_failed: float) -> int:
    """The exit code: 1, with a line to stderr, where more than that share of the rows failed; else 0."""
    if n_failed <= max_failed * n_rows:
        return 0
    found, allowed = f"{n_failed:,} of {n_rows:,} rows failed ({n_failed / n_rows:.1%})", f"{100 * max_failed:g}%"
    print(f"delta-attnmask: {found}, more than the {allowed} of --max-failed", file=sys.stderr)
    return 1


def print_verdict(found: Mapping[str, Any], *, strict: bool) -> int:
    """Print `verdict_sentence`, if there is one; the exit code: 3 where it says no and that is asked for, else 0."""
    if "verdict" not in found:
        return 0
    print(f"verdict: {found['verdict_sentence']}")
    return SAYS_NO if strict and Verdict(found["verdict"]).is_no else 0


def print_outcome(run: RunFolder, max_failed: float = MAX_FAILED) -> int:
    """Print how many rows of a run or its shard were scored, why others failed, and the next step; the exit code."""
    shard, where = run.shard, run.location
    command = f"select {where} --keep 20% --out FILE" if shard.is_whole else f"merge {where}, after all shards"
    next_step = f"Next: delta-attnmask {command}"
    n_rows = sum(len(run.unit_rows(unit)) for unit in range(run.n_units) if shard.owns(unit))
    if not n_rows and not shard.is_whole:  # more shards than units
        print(f"{where}: no unit of rows falls to shard {shard.index}/{shard.count}\n{next_step}")
        return 0
    failed = run.read_failed()
    n_failed = len(failed)
    whose = "" if shard.is_whole else f"shard {shard.index}/{shard.count} is done, "
    print(f"{where}: {whose}{n_rows - n_failed:,} scored, {n_failed:,} failed")
    columns = (failed[name].to_pylist() for name in ("row", "reason_code", "reason"))
    print_faults(count_faults(zip(*columns, strict=True)))
    if n_failed:
        print("Failed rows aren't tried again when you rerun this; score into another --out for that")
    if n_rows == n_failed:
        print(f"delta-attnmask: {where}: no row could be scored", file=sys.stderr)
        return 2
    print(next_step)
    return too_many_failed(n_failed, n_rows, max_failed)


def _first_record(part: FilePart) -> Record:
    """The first row that can be used of the first few, else the first of all."""
    records = [read_record(part.format, row) for row in islice(part.container.rows(), _N_TRIED)]
    return next((record for record in records if not record.reason), records[0])


def _describe(record: Record, in_full: bool) -> list[str]:
    """What a record says, in one line, or in full one for each turn."""
    n_chars, n_shown = (300, 50) if in_full else (80, 2)

    def shorten(text: str) -> str:
        return text if len(text) <= n_chars else f"{text[:n_chars]}…"

    def join(texts: list[str]) -> list[str]:
        n_more = len(texts) - n_shown
        return [*map(shorten, texts[:n_shown]), *([f"{n_more} more"] if n_more > 0 else [])]

    if record.reason:
        return [f"row {record.row} can't be used: {record.reason}"]
    turns = ["".join("[image]" if part is None else part for part in turn.parts) for turn in record.turns]
    says = join([f"{turn.role}: {text}" for turn, text in zip(record.turns, turns, strict=True)])
    says.append(f"images: {', '.join(join(list(map(str, record.images)))) or 'none'}")
    if in_full:
        return [f"row {record.row}", *(f"  {line}" for line in says)]
    return [f"row {record.row} is {' | '.join(says)}"]


def _to_line(columns: Sequence[str], cells: Sequence[str]) -> str:
    """Two columns read as name and value; more are named in every line."""
    if len(columns) == 2:
        return f"  {cells[0]}: {cells[1]}"
    return "  " + " | ".join(f"{column}: {cell}" for column, cell in zip(columns, cells, strict=True))


def _to_text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else printable(str(value))

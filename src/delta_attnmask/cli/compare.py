"""`delta-attnmask compare`: evaluations of several models side by side."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from delta_attnmask.cli.options import Json
from delta_attnmask.cli.terminal import print_table
from delta_attnmask.errors import SettingsError

_COLUMNS = ["method", "seeds", "mean over sources", "sd over seeds", "against baseline", "p", "seconds", "speed-up"]


def compare(
    *evaluations: Path,
    name: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    baseline: str | None = None,
    scoring: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    measure: Literal["exact", "normalised"] = "exact",
    json_file: Json = None,
    markdown: Path | None = None,
    seed: int = 0,
) -> int:
    """Put evaluations of one test set side by side: accuracy, paired differences, and the time that each took.

    Args:
        evaluations: Folders that `evaluate` made; each has its own path as its name unless --name gives another.
        name: NAME=FOLDER, also for a folder that isn't listed. Folders of one name are seeds of one method.
        baseline: Name or folder that the others are compared with; the first if not given.
        scoring: NAME=RUN: the scoring run that chose this method's data; its seconds count.
        measure: What counts as right: the exact text, or the normalised one.
        markdown: Also write the tables into this file.
        seed: Of the intervals.
    """
    from delta_attnmask.evaluating.comparing import compare_contenders
    from delta_attnmask.evaluating.contenders import gather_contenders
    from delta_attnmask.storage import write_text_atomically

    named = [(folder, label) for label, folder in map(_parse_pair, name or [])]
    labels = {str(folder): label for folder, label in named}
    listed = [(labels.pop(str(path), str(path)), path) for path in evaluations]
    runs = [*listed, *((label, folder) for folder, label in named if str(folder) in labels)]
    found = compare_contenders(
        gather_contenders(runs, dict(map(_parse_pair, scoring or []))), _named(baseline, named), measure, seed
    )
    for title, columns, lines in make_tables(found):
        print_table(title, columns, lines)
    if json_file is not None:
        write_text_atomically(json_file, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    if markdown is not None:
        write_text_atomically(markdown, "\n".join(_to_markdown(*table) for table in make_tables(found)))
    return 0


def _parse_pair(text: str) -> tuple[str, Path]:
    label, equals, folder = text.partition("=")
    if not (label and equals and folder):
        raise SettingsError(f"{text!r}: expected NAME=FOLDER")
    return label, Path(folder)


def _named(baseline: str | None, named: list[tuple[Path, str]]) -> str | None:
    """The baseline's name, also where its folder was given."""
    return next((label for folder, label in named if baseline == str(folder)), baseline)


def make_tables(found: dict[str, Any]) -> list[tuple[str, list[str], list[list[object]]]]:
    """Two tables, as title, columns and lines: the methods, and their accuracy by source."""
    methods = found["methods"]
    left_out = f"; {found['n_left_out']:,} left out, which not all answered" if found["n_left_out"] else ""
    title = f"{found['measure']} match on {found['n_answers']:,} answers of {found['n_rows']:,} rows{left_out}"
    sources = list(next(iter(methods.values()))["sources"])
    by_source = [[name, *(_share(one["sources"][source]) for source in sources)] for name, one in methods.items()]
    return [
        (title, _COLUMNS, [_line(name, one) for name, one in methods.items()]),
        ("By source", ["method", *(source or "(none)" for source in sources)], [list(line) for line in by_source]),
    ]


def _line(name: str, one: dict[str, Any]) -> list[object]:
    against, seconds = one.get("against_baseline"), one["seconds"]
    return [
        name,
        len(one["folders"]),
        _share(one["mean_over_sources"]),
        "-" if one["over_seeds"]["sd"] is None else f"{one['over_seeds']['sd']:.3f}",
        "baseline" if against is None else _against(against),
        "-" if against is None else f"{against['p']:.2g}",
        "-" if seconds["total_s"] is None else f"{seconds['total_s']:.0f}",
        "-" if seconds["speedup"] is None else f"{seconds['speedup']:.2f}x",
    ]


def _share(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def _against(difference: dict[str, Any]) -> str:
    mean = difference["mean_over_sources"]
    spread = difference["by_seed"]["sd"]
    seeds = "" if spread is None else f", ± {spread:.3f} over {difference['paired_seeds']} seeds"
    return f"{mean['value']:+.3f} ({mean['low']:+.3f} to {mean['high']:+.3f}){seeds}"


def _to_markdown(title: str, columns: list[str], lines: list[list[object]]) -> str:
    rows = [columns, ["---"] * len(columns), *([str(cell).replace("|", "\\|") for cell in line] for line in lines)]
    return f"{title}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"

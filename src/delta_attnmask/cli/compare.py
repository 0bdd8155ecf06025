"""`delta-attnmask compare`: evaluations of several models side by side."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from delta_attnmask.cli.options import Force, Json, claim_json, write_json
from delta_attnmask.cli.terminal import print_table, with_interval
from delta_attnmask.errors import SettingsError


def compare(
    *evaluations: str,
    baseline: str | None = None,
    scoring: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    measure: Literal["exact", "normalised", "loss"] = "exact",
    json_file: Json = None,
    force: Force = False,
    seed: int = 0,
) -> None:
    """Compare evaluations of one test set: accuracy, paired differences, and the time that each took.

    Args:
        evaluations: Folders that `evaluate` made, as FOLDER or NAME=FOLDER; the name of a bare folder is its path.
            Folders of one name are seeds of one method.
        baseline: Name that the others are compared with; by default the first.
        scoring: NAME=RUN: the scoring run that chose this method's data; its seconds count.
        measure: What counts as right: the exact text, or the normalised one; or loss, of the references in nats per
            token, of which less is better.
        seed: Seed of the intervals.
    """
    from delta_attnmask.evaluating.comparing import compare_evaluations

    runs = [(text, Path(text)) if Path(text).is_dir() or "=" not in text else _parse_pair(text) for text in evaluations]
    claim_json(json_file, [folder for _, folder in runs], force=force)
    found = compare_evaluations(runs, dict(map(_parse_pair, scoring or [])), baseline, measure, seed)
    _print_report(found)
    write_json(json_file, found)


def _parse_pair(text: str) -> tuple[str, Path]:
    label, equals, folder = text.partition("=")
    if not (label and equals and folder):
        raise SettingsError(f"{text!r}: expected NAME=FOLDER")
    return label, Path(folder)


def _print_report(found: dict[str, Any]) -> None:
    """Two tables: the methods, and their accuracy or loss by source."""
    methods, is_loss = found["methods"], found["measure"] == "loss"
    show = partial(with_interval, is_share=not is_loss)
    what = "loss (nats per token, less is better)" if is_loss else f"{found['measure']} match"
    left_out = f"; {found['n_left_out']:,} left out, which not all answered" if found["n_left_out"] else ""
    print_table(
        f"{what} on {found['n_answers']:,} answers of {found['n_rows']:,} rows{left_out}",
        ["method", "seeds", "mean over sources", "sd over seeds", "against baseline", "p", "seconds", "speed-up"],
        [_line(name, one, show) for name, one in methods.items()],
    )
    sources = list(next(iter(methods.values()))["sources"])
    print_table(
        "By source",
        ["method", *(source or "(none)" for source in sources)],
        [(name, *(show(one["sources"][source]) for source in sources)) for name, one in methods.items()],
    )


def _line(name: str, one: dict[str, Any], show: Callable[..., str | None]) -> list[object]:
    difference, p = "baseline", None
    if (against := one.get("against_baseline")) is not None:
        p, spread = against["p"], against["by_seed"]["sd"]
        seeds = "" if spread is None else f", sd {spread:.2g} over {against['paired_seeds']} seeds"
        difference = f"{show(against['mean_over_sources'], '+')}{seeds}"
    seconds, speedup = one["seconds"]["total_s"], one["seconds"]["speedup"]
    return [
        name,
        len(one["folders"]),
        show(one["mean_over_sources"]),
        one["over_seeds"]["sd"],
        difference,
        p,
        None if seconds is None else round(seconds),
        None if speedup is None else f"{speedup:.2f}x",
    ]

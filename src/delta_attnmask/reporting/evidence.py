"""Figures of trained models, read from a CSV: one line for each training. No torch here.

A column `method` names what was trained on, and one of MEASURES holds the outcome. Lines that agree in the method and
in the columns of APART are the seeds of one; where a column `source` has lines for "all", only these are drawn. Any
other column is shown in the table as it is.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reporting.drawing import INK, KEPT, LINE, Chart, drawing, label, rule_out

MEASURES = {
    "exact_match": "exact match",
    "accuracy": "accuracy",
    "em_mean": "exact match, mean over the sources",
    "normalised_match": "normalised match",
}
APART = ("group", "budget", "accounting", "augmentation")
_MAX_LINES = 5000
_N_METHODS = 24


@dataclass(frozen=True)
class Evidence:
    """columns, rows: as in the file. measure: the column that is drawn. outcomes: method → one for each seed."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    measure: str
    outcomes: Mapping[str, tuple[float, ...]]


def read_evidence(path: Path) -> Evidence:
    """Raises ArtifactError for a file that has no method and no measure, or no number in it."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = tuple(reader.fieldnames or ())
            lines = [line for line, _ in zip(reader, range(_MAX_LINES), strict=False)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ArtifactError(f"{path} can't be read: {error}; expected a CSV of trained models") from error
    measure = next((name for name in MEASURES if name in columns), None)
    if "method" not in columns or measure is None:
        raise ArtifactError(
            f"{path} has the columns {', '.join(columns) or '(none)'}; expected method and one of {', '.join(MEASURES)}"
        )
    outcomes = _outcomes(lines, measure)
    if not outcomes:
        raise ArtifactError(f"{path} has no number in the column {measure}")
    rows = tuple(tuple(line[name] or "" for name in columns) for line in lines)
    return Evidence(columns, rows, measure, outcomes)


def evidence_chart(evidence: Evidence) -> Chart:
    """The mean outcome of each method with its seeds, the best first."""
    ordered = sorted(evidence.outcomes.items(), key=lambda pair: -float(np.mean(pair[1])))
    shown = ordered[:_N_METHODS]
    with drawing(0.3 * len(shown) + 0.75) as figure:
        axes = figure.subplots()
        for place, (method, found) in enumerate(shown):
            axes.plot(found, [place] * len(found), "o", color=KEPT, markersize=4, alpha=0.45, mew=0)
            axes.plot([np.mean(found)], [place], "|", color=INK, markersize=13, mew=2)
            if "random" in method.lower():
                axes.axvline(float(np.mean(found)), color=LINE, linewidth=1.5, zorder=0)
        axes.set_yticks(range(len(shown)), [label(method, 44) for method, _ in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel(MEASURES[evidence.measure])
        axes.tick_params(axis="y", length=0)
        rule_out(axes, "left")
    return Chart(
        "evidence",
        "Models trained on what each method keeps",
        "Each dot is one training, each bar the mean of a method's seeds; thin lines mark random picks. Methods "
        "whose dots overlap are not told apart by these runs.",
        f"Outcomes of {len(shown)} methods by seed; the table has the means.",
        figure,
        ("method", "trainings", "mean", "standard deviation"),
        [(method, len(found), float(np.mean(found)), _deviation(found)) for method, found in ordered],
    )


def _outcomes(lines: Sequence[Mapping[str, str | None]], measure: str) -> dict[str, tuple[float, ...]]:
    whole = [line for line in lines if (line.get("source") or "all") == "all"]
    telling = [name for name in APART if len({line.get(name) for line in whole}) > 1]
    found = dict[str, list[float]]()
    for line in whole:
        name = ", ".join(text for column in ("method", *telling) if (text := line.get(column))) or "(none)"
        try:
            number = float(line[measure] or "nan")
        except ValueError:
            continue
        if math.isfinite(number):
            found.setdefault(name, []).append(number)
    return {name: tuple(numbers) for name, numbers in found.items()}


def _deviation(found: Sequence[float]) -> float | None:
    return float(np.std(found, ddof=1)) if len(found) > 1 else None

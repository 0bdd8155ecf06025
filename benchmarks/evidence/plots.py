"""The plots of an evidence run, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from .results import Results

mpl.rcParams["svg.hashsalt"] = "evidence"  # the same figures give the same file

_LEVELS = {"full": "-", "none": "-."}  # what no choice of rows is needed for, with the style of its line
_TOLD = {"full": "full pool", "none": "untouched base"}


def draw_methods(results: Results, path: Path) -> None:
    """Exact match of every method at 20 %, its seeds as points; as lines the untouched base, the full pool, random and
    oracle.
    """
    from .jobs import METHODS

    found = {name: results.values(name) for name in METHODS if len(results.values(name))}
    order = sorted(found, key=lambda name: found[name].mean())
    figure = Figure(figsize=(8, 0.28 * len(order) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(order):
        color = "#c0392b" if name.startswith(("chosen", "paper")) else "#555555"
        axes.plot(found[name], np.full(len(found[name]), place), ".", color=color, alpha=0.5)
        axes.plot(found[name].mean(), place, "|", color=color, markersize=12, markeredgewidth=2)
    for name, style in (*_LEVELS.items(), ("random", ":"), ("oracle", "--")):
        values = results.values(name)
        if len(values):
            axes.axvline(values.mean(), linestyle=style, color="#2c3e50", linewidth=1, label=_TOLD.get(name, name))
    axes.set_yticks(range(len(order)), order)
    axes.set_xlabel("mean exact match over sources (test)")
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def draw_budgets(results: Results, path: Path) -> None:
    """The main methods over the budget."""
    from .jobs import MAIN
    from .results import Run

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    budgets = (0.05, 0.1, 0.2, 0.4)
    for name in MAIN:
        points = [(budget, results.values(Run(name, budget=budget))) for budget in budgets]
        there = [(budget, values) for budget, values in points if len(values)]
        axes.errorbar(
            [budget for budget, _ in there], [values.mean() for _, values in there],
            yerr=[values.std(ddof=1) if len(values) > 1 else 0 for _, values in there],
            marker="o", capsize=3, label=name,
        )  # fmt: skip
    for name, style in _LEVELS.items():
        values = results.values(name)
        if len(values):
            axes.axhline(values.mean(), linestyle=style, color="#2c3e50", linewidth=1, label=_TOLD[name])
    axes.set_xscale("log")
    axes.set_xticks(budgets, [f"{budget:.0%}" for budget in budgets])
    axes.minorticks_off()
    axes.set_xlabel("share of the pool kept")
    axes.set_ylabel("mean exact match (± standard deviation)")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})

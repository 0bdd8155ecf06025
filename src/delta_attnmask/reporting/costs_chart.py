"""The chart of costs: when scoring pays. No torch here."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from delta_attnmask.auditing.costs import SHARES
from delta_attnmask.reporting.drawing import INK, KEPT, LINE, MUTED, Chart, drawing, number_logarithmically
from delta_attnmask.reporting.words import write_number, write_percent, write_seconds, write_share

_DECADES = 1.5  # to each side of the speed of scoring


def costs(found: Mapping[str, Any], n_rows: int) -> Chart:
    """How much faster training is with scoring counted, by how fast training goes, for some budgets."""
    once_s = found["scoring_s"] + found["calibration_s"]
    centre = n_rows / once_s
    rates = np.geomspace(centre / 10**_DECADES, centre * 10**0.5, 80)
    with drawing(3.2) as figure:
        axes = figure.subplots()
        axes.axhspan(0, 1, color=LINE, alpha=0.45, linewidth=0)
        for share in SHARES:
            speedup = _speedup(rates, share, n_rows, once_s, found["epochs"])
            axes.plot(rates, speedup, color=KEPT, linewidth=2.2 if share == 0.2 else 1.1)
            axes.annotate(
                f"keep {write_percent(share)}", (rates[0], speedup[0]), (2, 3), textcoords="offset points", va="bottom"
            )
        axes.axvline(found["rows_per_s"], color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        axes.annotate(
            "as fast as scoring", (found["rows_per_s"], 1), (-4, -4), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="right", va="top", color=MUTED,
        )  # fmt: skip
        if found["train_rate"]:
            axes.axvline(found["train_rate"], color=INK, linewidth=1.4)
        axes.set_xscale("log")
        axes.set_yscale("log")
        number_logarithmically(axes.xaxis)
        number_logarithmically(axes.yaxis)
        axes.set_ylim(0.4, 25)
        axes.set_xlim(rates[0], rates[-1])
        axes.set_xlabel("speed of training, rows a second")
        axes.set_ylabel("times faster in all")
    return Chart(
        "costs",
        "When scoring pays",
        _describe_time(found, n_rows)
        + " Above the grey band, scoring and training on the kept rows together take less "
        "time than training on all rows. One step of training costs about three forwards, so it is slower than "
        "scoring on the same machine.",
        "Lines of the speed-up in all against the speed of training, one for each share that is kept; the table tells "
        "where each breaks even.",
        figure,
        _columns(found),
        [_row(found, one) for one in found["budgets"]],
    )


def _describe_time(found: Mapping[str, Any], n_rows: int) -> str:
    before = f", after {write_seconds(found['calibration_s'])} of calibration" if found["calibration_s"] else ""
    pace = f"{write_number(found['rows_per_s'])} rows a second"
    return f"Scoring {n_rows:,} rows took {write_seconds(found['scoring_s'])} at {pace}{before}."


def _speedup(rates: "np.ndarray[Any, Any]", share: float, n_rows: int, once_s: float, epochs: float) -> Any:
    full_s = n_rows * epochs / rates
    return full_s / (share * full_s + once_s)


def _columns(found: Mapping[str, Any]) -> tuple[str, ...]:
    timed = ("training on all", "on the kept", "saved in all") if found["train_rate"] else ()
    return ("kept", "rows", "pays where training is slower than, rows/s", *timed)


def _row(found: Mapping[str, Any], one: Mapping[str, Any]) -> tuple[object, ...]:
    keys = ("training_all_s", "training_kept_s", "saved_s") if found["train_rate"] else ()
    return write_share(one["keep"]), one["n_kept"], one["pays_below"], *(write_seconds(one[key]) for key in keys)

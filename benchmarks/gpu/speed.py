"""Part 2: time and memory of a score beside plain forwards and the naive score, compiled or not, and of a sweep."""

from functools import partial
from typing import Any

import torch
from torch._dynamo.utils import counters

from benchmarks.gpu.findings import Findings, NamedStep, Place
from benchmarks.scoring import report
from benchmarks.scoring.inputs import random_batch
from benchmarks.scoring.measure import costs, matrix_rate
from benchmarks.scoring.models import SUBJECTS, build, shallow
from benchmarks.scoring.runs import COMPILED, NAIVE, OURS, Plan, results
from benchmarks.sweep.__main__ import grid_at
from delta_attnmask.modeling.load import compile_blocks
from delta_attnmask.scoring.delta import score_batch, sweep_batch
from delta_attnmask.settings import MaskSettings

_SIZES, _TINY_SIZES = (1, 8, 32), (2,)
_SECONDS, _TINY_SECONDS = 6.0, 0.0  # timed, of a model and size
_SWEPT = 8  # samples


def compare_times(findings: Findings, place: Place) -> None:
    """Goals are held against the largest batch that every run fits."""
    sizes, budget_s = (_TINY_SIZES, _TINY_SECONDS) if place.is_tiny else (_SIZES, _SECONDS)
    rate = matrix_rate(place.device, place.dtype)
    subject = SUBJECTS[place.model]
    found = list(results(subject, Plan(sizes, place.device, place.dtype, budget_s, is_compiled=not place.is_tiny)))
    table = report.rows(found, rate)
    findings.note("all", table)
    print(report.markdown(table), flush=True)
    by_run: dict[str, dict[str, Any]] = {}
    for row in table:  # sizes grow, so the largest stays
        if row["to plain"] == row["to plain"]:
            by_run[row["run"]] = row
    ours = by_run[OURS[place.device.type]]
    findings.check("time to a plain forward", ours["to plain"])
    if place.device.type == "cuda":
        findings.check("memory to a plain forward", ours["peak to plain"])
    best = min((by_run[name] for name in (OURS[place.device.type], COMPILED) if name in by_run), key=_ms)
    if COMPILED in by_run:
        findings.check("compiled: time to a plain forward", by_run[COMPILED]["to plain"])
    findings.check("of the rate of a matrix product", best["of matrix rate"])
    if NAIVE in by_run:
        findings.check("times as fast as the naive score", best["faster than naive"])


def _ms(row: dict[str, Any]) -> float:
    return float(row["ms/sample"])


def count_compilations(findings: Findings, place: Place) -> None:
    """Batches of other sizes and lengths after three of them; on a CPU the blocks are traced, not compiled."""
    subject = shallow(SUBJECTS[place.model], 2) if place.is_tiny else SUBJECTS[place.model]
    model = build(subject, place.device, place.dtype)
    compile_blocks(model, "inductor" if place.device.type == "cuda" else "eager")
    n_graphs = []
    for number, size in enumerate((2, 3, 4, 5) if place.is_tiny else (2, 3, 4, 2, 5, 3, 6)):
        batch = random_batch(subject, size, 1, place.device, place.dtype, step=1 + number)
        score_batch(model, *batch, MaskSettings.paper())
        n_graphs.append(counters["stats"]["unique_graphs"])
    findings.note("graphs after each batch", n_graphs)
    findings.check("graphs compiled after the warm-up", n_graphs[-1] - n_graphs[2])


def compare_sweep(findings: Findings, place: Place) -> None:
    """24 settings of the last block but one."""
    subject = SUBJECTS[place.model]
    model = build(subject, place.device, place.dtype)
    inputs, labels = random_batch(subject, 2 if place.is_tiny else _SWEPT, 1, place.device, place.dtype)
    grids = {"one": [MaskSettings.paper()], "many": grid_at(-2)}
    calls = {name: partial(sweep_batch, model, inputs, labels, grid) for name, grid in grids.items()}
    found = costs(calls, place.device, _TINY_SECONDS if place.is_tiny else _SECONDS)
    findings.note("seconds", {name: cost.seconds for name, cost in found.items()})
    findings.check("24 settings to one", found["many"].median_s / found["one"].median_s)
    torch.compiler.reset()


STEPS = (
    NamedStep("times", compare_times),
    NamedStep("sweep", compare_sweep),
    NamedStep("compilations", count_compilations, is_done_once=True),
)

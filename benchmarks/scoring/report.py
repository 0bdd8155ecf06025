"""The results as a markdown table and as JSON."""

import platform
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from benchmarks.scoring.runs import NAIVE, PLAIN, Result

COLUMNS = (
    "model",
    "run",
    "batch",
    "ms/sample",
    "spread",
    "to plain",
    "faster than naive",
    "of matrix rate",
    "peak GB",
    "peak to plain",
    "padding",
)
GB = 1e9


def machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def rows(results: Sequence[Result], matrix_rate: float) -> list[dict[str, Any]]:
    """One dict a result; numbers are None where they couldn't be measured."""
    plain = {(r.model, r.batch_size): r for r in results if r.run == PLAIN}
    naive_s = {
        model: min((_sample_s(r) for r in results if r.model == model and r.run == NAIVE), default=float("nan"))
        for model in {r.model for r in results}
    }
    return [
        _row(result, plain[result.model, result.batch_size], naive_s[result.model], matrix_rate) for result in results
    ]


def markdown(table: Sequence[dict[str, Any]]) -> str:
    lines = [" | ".join(COLUMNS), " | ".join(["---"] * 2 + ["---:"] * (len(COLUMNS) - 2))]
    lines += [" | ".join(_cell(name, row[name]) for name in COLUMNS) for row in table]
    return "\n".join(f"| {line} |" for line in lines)


def _sample_s(result: Result) -> float:
    return result.cost.median_s / result.batch_size


def _row(result: Result, plain: Result, naive_s: float, matrix_rate: float) -> dict[str, Any]:
    sample_s, peak = _sample_s(result), result.cost.peak_bytes
    return {
        "model": result.model,
        "run": result.run if not result.cost.failure else f"{result.run}: {result.cost.failure}",
        "batch": result.batch_size,
        "ms/sample": sample_s * 1e3,
        "spread": result.cost.spread,
        "to plain": sample_s / _sample_s(plain),
        "faster than naive": naive_s / sample_s,
        "of matrix rate": result.flop / sample_s / matrix_rate,
        "peak GB": peak / GB or None,
        "peak to plain": peak / plain.cost.peak_bytes if peak and plain.cost.peak_bytes else None,
        "padding": result.padding,
        "seconds": list(result.cost.seconds),
    }


def _cell(name: str, value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        is_share = name in ("spread", "of matrix rate", "padding")
        return f"{value:.1%}" if is_share else f"{value:.2f}"
    return str(value)

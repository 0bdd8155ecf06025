"""Training against the clock: the learning rate as a function of the share of the time that is gone."""

from __future__ import annotations

import math


def rate_at(peak: float, gone: float, warmup: float) -> float:
    """Linear warm-up, then a cosine down to nothing; `gone` and `warmup` are shares of the time."""
    if gone < warmup:
        return peak * max(gone / warmup, 0.01)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (gone - warmup) / (1 - warmup))))


def tell(elapsed_s: float, step: int, values: dict[str, float]) -> None:
    """One line of progress."""
    print(
        f"{elapsed_s:6.0f} s  step {step:6}  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()),
        flush=True,
    )

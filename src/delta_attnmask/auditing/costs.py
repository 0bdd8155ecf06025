"""Whether scoring pays: the seconds that it takes against the training time that a smaller set saves."""

from collections.abc import Sequence
from typing import Any

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


def break_even(
    n_rows: int,
    seconds_per_row: float,
    *,
    fixed_s: float = 0.0,
    train_rate: float | None = None,
    epochs: float = 1.0,
    shares: Sequence[float] = SHARES,
) -> list[dict[str, Any]]:
    """For each share that is kept: seconds of scoring, of training on all and on the kept rows, and what that saves.

    seconds_per_row: of scoring. fixed_s: of calibration before it, counted with it.
    train_rate: rows that training gets through in a second; without it only `pays_below` is given: scoring pays where
        training is slower than that many rows a second.
    """
    scoring_s = fixed_s + n_rows * seconds_per_row
    lines = []
    for share in shares:
        n_kept = round(share * n_rows)
        pays_below = round((n_rows - n_kept) * epochs / scoring_s, 3) if scoring_s else None
        line = {"keep": share, "n_kept": n_kept, "scoring_s": round(scoring_s, 1), "pays_below": pays_below}
        if train_rate:
            full_s, kept_s = n_rows * epochs / train_rate, n_kept * epochs / train_rate
            line |= {"training_all_s": round(full_s, 1), "training_kept_s": round(kept_s, 1)}
            line |= {"saved_s": round(full_s - kept_s - scoring_s, 1)}
        lines.append(line)
    return lines

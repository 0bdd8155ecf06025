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
    return [_at(share, n_rows, scoring_s, train_rate, epochs) for share in shares]


def _at(share: float, n_rows: int, scoring_s: float, train_rate: float | None, epochs: float) -> dict[str, Any]:
    n_kept = round(share * n_rows)
    line: dict[str, Any] = {
        "keep": share,
        "n_kept": n_kept,
        "scoring_s": round(scoring_s, 1),
        "pays_below": round((n_rows - n_kept) * epochs / scoring_s, 3) if scoring_s else None,
    }
    if train_rate:
        full_s, kept_s = n_rows * epochs / train_rate, n_kept * epochs / train_rate
        line |= {
            "training_all_s": round(full_s, 1),
            "training_kept_s": round(kept_s, 1),
            "saved_s": round(full_s - kept_s - scoring_s, 1),
        }
    return line

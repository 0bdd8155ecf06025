"""The figures of an evaluation: accuracy with intervals, looking at the image, and whether instructions are kept."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.evaluating.predictions import EvaluationFolder
from delta_attnmask.manifest import Manifest
from delta_attnmask.reading.faults import generalise
from delta_attnmask.statistics import Estimate, Values, mean_of_shares

MEASURES = ("exact", "normalised")


def row_sums(rows: NDArray[np.int64], values: Values) -> tuple[Values, Values]:
    """Sums of the values of each row's answers, and how many answers it has; in the order of the rows."""
    found, place = np.unique(rows, return_inverse=True)
    counts = np.bincount(place, minlength=len(found)).astype(np.float64)
    return np.bincount(place, weights=values, minlength=len(found)).astype(np.float64), counts


def to_numbers(lines: pa.Table, column: str) -> Values:
    """A column as float64."""
    return np.asarray(pc.cast(lines[column], pa.float64()).to_numpy(), dtype=np.float64)


def own_lines(predictions: pa.Table) -> pa.Table:
    """The answers to the rows as they are, without failed ones."""
    is_own = pc.and_(pc.is_null(predictions["swapped_row"]), pc.equal(predictions["status"], "ok"))
    return predictions.filter(is_own)


def swapped_pairs(predictions: pa.Table) -> pa.Table:
    """The answers given with the right and with swapped images; columns of the latter begin with `swapped_`."""
    is_swapped = pc.and_(pc.is_valid(predictions["swapped_row"]), pc.equal(predictions["status"], "ok"))
    swapped = predictions.filter(is_swapped).select(["row", "turn", *MEASURES, "loss"])
    renamed = swapped.rename_columns(["row", "turn", *(f"swapped_{name}" for name in (*MEASURES, "loss"))])
    own = own_lines(predictions).select(["row", "turn", "source", *MEASURES, "loss"])
    return own.join(renamed, keys=["row", "turn"], join_type="inner").sort_by(
        [("row", "ascending"), ("turn", "ascending")]
    )


def make_report(folder: EvaluationFolder) -> dict[str, Any]:
    """The whole of `evaluation.json`."""
    predictions = folder.read()
    manifest = folder.manifest
    seed = int(manifest.settings["seed"])
    own, pairs = own_lines(predictions), swapped_pairs(predictions)
    failed = failed_rows(predictions)
    sources = sorted(set(own["source"].to_pylist()))
    by_source = {name: _of_source(own, name) for name in sources}
    pairs_by_source = {name: _of_source(pairs, name) for name in sources}
    return {
        "schema": 1,
        **_origin(manifest),
        "seconds": folder.seconds(),
        "n_rows": manifest.n_rows,
        "n_failed_rows": len(failed),
        "reasons": dict(Counter(generalise(reason) for _, _, reason in failed).most_common(20)),
        "mean_over_sources": _mean_over_sources(list(by_source.values()), list(pairs_by_source.values()), seed),
        "pooled": _figures(own, pairs, seed),
        "sources": {name: _figures(by_source[name], pairs_by_source[name], seed) for name in sources},
    }


def _origin(manifest: Manifest) -> dict[str, Any]:
    names = ("model", "model_fingerprint", "data", "input", "settings", "command", "versions", "created")
    return {name: value for name, value in asdict(manifest).items() if name in names}


def _of_source(lines: pa.Table, source: str) -> pa.Table:
    return lines.filter(pc.equal(lines["source"], source))


def failed_rows(predictions: pa.Table) -> list[tuple[int, str, str]]:
    """Rows of which an answer is missing, with the code and text of the first reason; the control apart."""
    is_failed = pc.and_(pc.is_null(predictions["swapped_row"]), pc.equal(predictions["status"], "failed"))
    lines = predictions.filter(is_failed).select(["row", "reason_code", "reason"]).to_pylist()
    first = {line["row"]: (line["row"], line["reason_code"], line["reason"]) for line in reversed(lines)}
    return [first[row] for row in sorted(first)]


def _figures(own: pa.Table, pairs: pa.Table, seed: int) -> dict[str, Any]:
    """Of one group of answers. Loss: mean over answers of their nats per token."""
    if not len(own):
        return {"n_rows": 0, "n_answers": 0}
    return {
        "n_rows": pc.count_distinct(own["row"]).as_py(),
        "n_answers": len(own),
        **{name: asdict(mean_of_shares([_sums_of(own, name)], seed)) for name in MEASURES},
        "loss": float(to_numbers(own, "loss").mean()),
        "swapped": _swapped(pairs, seed),
        "instructions": _instructions(own),
    }


def _swapped(pairs: pa.Table, seed: int) -> dict[str, Any] | None:
    """What is left with another row's images. gain: what the right ones add, on the same answers."""
    if not len(pairs):
        return None
    estimates = {name: asdict(mean_of_shares([_sums_of(pairs, f"swapped_{name}")], seed)) for name in MEASURES}
    gains = {f"{name}_gain": asdict(mean_of_shares([_gain_of(pairs, name)], seed)) for name in MEASURES}
    losses = to_numbers(pairs, "swapped_loss")
    rise = float((losses - to_numbers(pairs, "loss")).mean())
    return {"n_answers": len(pairs), **estimates, **gains, "loss": float(losses.mean()), "loss_rise": rise}


def _sums_of(lines: pa.Table, column: str) -> tuple[Values, Values]:
    return row_sums(lines["row"].to_numpy(), to_numbers(lines, column))


def _gain_of(pairs: pa.Table, measure: str) -> tuple[Values, Values]:
    gains = to_numbers(pairs, measure) - to_numbers(pairs, f"swapped_{measure}")
    return row_sums(pairs["row"].to_numpy(), gains)


def _instructions(own: pa.Table) -> dict[str, float]:
    """Whether answers look as the references do: shares, and mean lengths in tokens."""
    is_empty: NDArray[np.float64] = np.array([not text for text in own["prediction"].to_pylist()], dtype=np.float64)
    new, reference = to_numbers(own, "n_new_tokens"), to_numbers(own, "n_reference_tokens")
    return {
        "same_form": float(to_numbers(own, "same_form").mean()),
        "ended": float(to_numbers(own, "ended").mean()),
        "empty": float(is_empty.mean()),
        "n_new_tokens": float(new.mean()),
        "n_reference_tokens": float(reference.mean()),
        "length_ratio": float(new.sum() / reference.sum()),
    }


def _mean_over_sources(own: list[pa.Table], pairs: list[pa.Table], seed: int) -> dict[str, Any]:
    """Every source counts alike, however many rows it has. The gain is over the sources that have images to swap."""
    if not own:
        return {"n_sources": 0}
    found: dict[str, Any] = {"n_sources": len(own)}
    estimates: dict[str, Estimate] = {
        name: mean_of_shares([_sums_of(lines, name) for lines in own], seed) for name in MEASURES
    }
    if with_pairs := [lines for lines in pairs if len(lines)]:
        estimates |= {
            f"{name}_gain": mean_of_shares([_gain_of(lines, name) for lines in with_pairs], seed) for name in MEASURES
        }
    return found | {name: asdict(estimate) for name, estimate in estimates.items()}

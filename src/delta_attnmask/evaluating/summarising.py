"""The figures of an evaluation: accuracy with intervals, looking at the image, and whether instructions are kept."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from delta_attnmask.evaluating.predictions import EvaluationFolder
from delta_attnmask.reading.faults import generalise
from delta_attnmask.statistics import Values, mean_of_shares

MEASURES = ("exact", "normalised")
COMPARED = (*MEASURES, "loss")  # of which less is better
_ORIGIN = ("model", "model_fingerprint", "data", "input", "settings", "command", "versions", "created")


def make_report(folder: EvaluationFolder) -> dict[str, Any]:
    """The whole of `evaluation.json`. In means over sources each counts the same, however many rows it has."""
    predictions, manifest = folder.read(), asdict(folder.manifest)
    seed = int(folder.manifest.settings["seed"])
    own, pairs = own_lines(predictions), swapped_pairs(predictions)
    by_own, by_pairs = by_source(own), by_source(pairs)
    over_sources: dict[str, Any] = {"n_sources": len(by_own)}
    if by_own:
        over_sources |= {name: share(by_own.values(), name, seed) for name in MEASURES}
    if by_pairs:  # over the sources that have images to swap
        over_sources |= {f"{name}_gain": share(by_pairs.values(), f"{name}_gain", seed) for name in MEASURES}
    failed = failed_rows(predictions)
    return {
        "schema": 1,
        **{name: manifest[name] for name in _ORIGIN},
        "n_rows": folder.manifest.n_rows,
        "n_failed_rows": len(failed),
        "reasons": dict(Counter(generalise(reason) for _, _, reason in failed).most_common(20)),
        "mean_over_sources": over_sources,
        "pooled": _figures(own, pairs, seed),
        "sources": {name: _figures(lines, by_pairs.get(name), seed) for name, lines in by_own.items()},
    }


def own_lines(predictions: pa.Table) -> pa.Table:
    """The answers to the rows as they are, without failed ones."""
    is_own = pc.and_(pc.is_null(predictions["swapped_row"]), pc.equal(predictions["status"], "ok"))
    return predictions.filter(is_own)


def swapped_pairs(predictions: pa.Table) -> pa.Table:
    """The answers given with the right and with swapped images.

    Columns of the latter end with `_swapped`; what the right images add to a measure ends with `_gain`.
    """
    is_swapped = pc.and_(pc.is_valid(predictions["swapped_row"]), pc.equal(predictions["status"], "ok"))
    swapped = predictions.filter(is_swapped).select(["row", "turn", *COMPARED])
    own = own_lines(predictions).select(["row", "turn", "source", "image", *COMPARED])
    pairs = own.join(swapped, ["row", "turn"], join_type="inner", right_suffix="_swapped")
    pairs = pairs.sort_by([("row", "ascending"), ("turn", "ascending")])
    for name in COMPARED:
        gain = to_numbers(pairs, name) - to_numbers(pairs, f"{name}_swapped")
        pairs = pairs.append_column(f"{name}_gain", pa.array(gain))
    return pairs


def failed_rows(predictions: pa.Table) -> list[tuple[int, str, str]]:
    """Rows of which an answer is missing, with the code and text of the first reason; the control apart."""
    is_failed = pc.and_(pc.is_null(predictions["swapped_row"]), pc.equal(predictions["status"], "failed"))
    lines = predictions.filter(is_failed).select(["row", "reason_code", "reason"]).to_pylist()
    first = {line["row"]: (line["row"], line["reason_code"], line["reason"]) for line in reversed(lines)}
    return [first[row] for row in sorted(first)]


def to_numbers(lines: pa.Table, column: str) -> Values:
    """A column as float64."""
    return np.asarray(pc.cast(lines[column], pa.float64()).to_numpy(), dtype=np.float64)


def by_source(lines: pa.Table) -> dict[str, pa.Table]:
    """The answers of each source, in the order of their names."""
    names = sorted(set(lines["source"].to_pylist()))
    return {name: lines.filter(pc.equal(lines["source"], name)) for name in names}


def sums_by_image(lines: pa.Table, column: str) -> tuple[Values, Values]:
    """Sums of a column over the answers about each image, and how many these are; a row without an image is alone.

    What is asked about one image rises and falls together, so images are what intervals draw and tests count.
    """
    alone = pc.binary_join_element_wise("row", pc.cast(lines["row"], pa.string()), " ")
    known = pc.fill_null(lines["image"], "")  # evaluations of earlier versions have none
    image = pc.if_else(pc.equal(known, ""), alone, known)
    sums = lines.append_column("group", image).group_by("group").aggregate([(column, "sum"), (column, "count")])
    return to_numbers(sums, f"{column}_sum"), to_numbers(sums, f"{column}_count")


def share(groups: Iterable[pa.Table], column: str, seed: int) -> dict[str, float]:
    """The mean of a column, of each group, with its interval."""
    return asdict(mean_of_shares([sums_by_image(lines, column) for lines in groups], seed))


def _mean(lines: pa.Table, column: str) -> float:
    return float(to_numbers(lines, column).mean())


def _figures(own: pa.Table, pairs: pa.Table | None, seed: int) -> dict[str, Any]:
    """Of one group of answers. Loss: mean over answers of their nats per token."""
    if not len(own):
        return {"n_rows": 0, "n_answers": 0}
    return {
        "n_rows": pc.count_distinct(own["row"]).as_py(),
        "n_answers": len(own),
        **{name: share([own], name, seed) for name in MEASURES},
        "loss": _mean(own, "loss"),
        "swapped": _swapped(pairs, seed) if pairs else None,
        "instructions": _instructions(own),
    }


def _swapped(pairs: pa.Table, seed: int) -> dict[str, Any]:
    """What is left with another row's images. gain: what the right ones add, on the same answers."""
    return {
        "n_answers": len(pairs),
        **{name: share([pairs], f"{name}_swapped", seed) for name in MEASURES},
        **{f"{name}_gain": share([pairs], f"{name}_gain", seed) for name in MEASURES},
        "loss": _mean(pairs, "loss_swapped"),
        "loss_rise": -_mean(pairs, "loss_gain"),
    }


def _instructions(own: pa.Table) -> dict[str, float]:
    """Whether answers look as the references do: shares, and mean lengths in tokens."""
    means = {name: _mean(own, name) for name in ("same_form", "ended", "n_new_tokens", "n_reference_tokens")}
    return means | {
        "empty": pc.mean(pc.equal(own["prediction"], "")).as_py(),
        "length_ratio": means["n_new_tokens"] / means["n_reference_tokens"],
    }

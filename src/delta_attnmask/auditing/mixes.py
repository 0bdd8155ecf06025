"""What a selection does to the mix of the data: shares before and after, the largest changes named."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from delta_attnmask.auditing.languages import language
from delta_attnmask.selecting.mix import chance_distortion, distortion
from delta_attnmask.selecting.rules import Positions
from delta_attnmask.selecting.strata import Strata, encode, renumber, strata_of

MIXES = (("source",), ("answer_type",), ("source", "answer_type"), ("question",))
_N_NAMED = 8


def mix_changes(table: pa.Table, kept: Positions) -> dict[str, dict[str, Any]]:
    """How the mix of sources, answer types, questions and languages changes from all rows of the table to the kept."""
    changes = {}
    for columns in MIXES:
        strata = strata_of(table, columns)
        changes[" and ".join(columns)] = mix_change(strata, kept, partial(name_stratum, table, columns, strata))
    codes, questions = encode(table, "question")
    of_question = [language(text) for text in questions]
    names = sorted(set(of_question))
    numbers = np.array([names.index(name) for name in of_question], dtype=np.int32)
    used = np.unique(numbers[codes])
    changes["language of the question"] = mix_change(
        renumber(numbers[codes], len(names)), kept, lambda idx: names[used[idx]]
    )
    return changes


def mix_change(strata: Strata, kept: Positions, name: Callable[[int], str]) -> dict[str, Any]:
    """Distortion of the mix, what chance would give, and the strata whose share changes most, largest first.

    name: gives the name of the stratum of a number.
    """
    before = strata.sizes / len(strata.codes)
    after = np.bincount(strata.codes[kept], minlength=strata.n) / len(kept)
    largest = np.argsort(-np.abs(after - before), kind="stable")[:_N_NAMED]
    return {
        "n_strata": strata.n,
        "n_strata_lost": int(np.count_nonzero(after == 0)),
        "distortion": round(distortion(strata, kept), 4),
        "distortion_by_chance": round(chance_distortion(strata, len(kept)), 4),
        "largest": [
            {"name": name(int(idx)), "before": round(float(before[idx]), 4), "after": round(float(after[idx]), 4)}
            for idx in largest
        ],
    }


def name_stratum(table: pa.Table, columns: Sequence[str], strata: Strata, idx: int) -> str:
    """A stratum is named by what its first row says."""
    row = int(strata.firsts[idx])
    return " / ".join(str(table[column][row].as_py()) or "(none)" for column in columns)

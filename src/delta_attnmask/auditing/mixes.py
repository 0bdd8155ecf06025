"""What a selection does to the mix of the data: shares before and after, the largest changes named."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from delta_attnmask.selecting.mix import chance_distortion, distortion
from delta_attnmask.selecting.rules import Positions
from delta_attnmask.selecting.strata import Strata, encode, renumber, strata_of

# Scripts by the first and last character that tells them; a text's script is that of its first such letter.
_SCRIPTS = {
    "Latin": ("A", "\u024f"),
    "Greek": ("\u0370", "\u03ff"),
    "Cyrillic": ("\u0400", "\u052f"),
    "Hebrew": ("\u0590", "\u05ff"),
    "Arabic": ("\u0600", "\u06ff"),
    "Devanagari": ("\u0900", "\u097f"),
    "Thai": ("\u0e00", "\u0e7f"),
    "Kana": ("\u3040", "\u30ff"),
    "Han": ("\u3400", "\u9fff"),
    "Hangul": ("\uac00", "\ud7a3"),
}
MIXES = (("source",), ("answer_type",), ("source", "answer_type"), ("question",))
_N_NAMED = 8


def mix_changes(table: pa.Table, kept: Positions) -> dict[str, dict[str, Any]]:
    """How the mix of sources, answer types, questions and scripts changes from all rows of the table to the kept."""
    changes = {}
    for columns in MIXES:
        strata = strata_of(table, columns)
        changes[" and ".join(columns)] = mix_change(strata, kept, partial(name_stratum, table, columns, strata))
    codes, questions = encode(table, "question")
    names = [*_SCRIPTS, "other"]
    numbers = np.array([names.index(script(text)) for text in questions], dtype=np.int32)
    used = np.unique(numbers[codes])
    changes["script of the question"] = mix_change(
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


def script(text: str) -> str:
    """The writing system of the text's first letter that belongs to a known one; else "other"."""
    for char in text:
        for name, (first, last) in _SCRIPTS.items():
            if first <= char <= last and char.isalpha():
                return name
    return "other"


def name_stratum(table: pa.Table, columns: Sequence[str], strata: Strata, idx: int) -> str:
    """A stratum is named by what its first row says."""
    row = int(strata.firsts[idx])
    return " / ".join(str(table[column][row].as_py()) or "(none)" for column in columns)

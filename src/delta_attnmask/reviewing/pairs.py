"""Draw the pairs of a review: a selected row and a control of the same source, on random sides, with checks between."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.reviewing.protocol import PROTOCOL_FILE, SIDES, Pair, Protocol
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.note import read_note
from delta_attnmask.selection import Selection
from delta_attnmask.storage import write_text_atomically

BLOCK = 10  # pairs, among which one check is put
_MIN_CHECKS = 2  # fewer can't reveal a careless judge
_MIN_CHARS = 6  # distinct ones in a question; reversed, a shorter one may look as it did
_MAX_LOOKED_AT = 20_000  # rows, to find questions for the checks
_MAX_PAIRS = 1000  # a page of so many holds up to 300 MB of images

Rows = NDArray[np.int64]


def begin_review(
    run: RunFolder, out: Path, selection: Path, *, against: str = "random", n_pairs: int = 60, seed: int = 0
) -> Protocol:
    """Draw the pairs and write them to `out`; pairs that the same choices drew there before are kept.

    selection: a file that `select` wrote, or its note. against: random, left, or such a file.
    Raises ArtifactError, naming what differs, where `out` holds a review of other choices.
    """
    if not 1 <= n_pairs <= _MAX_PAIRS:
        raise SettingsError(f"pairs={n_pairs}: expected 1 to {_MAX_PAIRS:,}")
    selected = read_note(selection, run)
    other = None if against in ("random", "left") else read_note(Path(against), run)
    choices: dict[str, Any] = {
        "manifest_sha256": run.manifest_sha256,
        "selection": _describe(selected),
        "against": against if other is None else _describe(other),
        "seed": seed,
        "n_pairs": n_pairs,
    }
    if (out / PROTOCOL_FILE).exists():
        found = Protocol.read(out)
        different = [name.removeprefix("n_") for name, value in choices.items() if getattr(found, name) != value]
        if different:
            raise ArtifactError(f"{out} holds a review with other {', '.join(different)}; name another folder")
        return found
    scores = run.read_scores(["row", "source", "status", "question"])
    kept, control = choose_rows(scores, selected.indices, against, None if other is None else other.indices)
    protocol = Protocol(id=token_hex(8), pairs=draw_pairs(scores, kept, control, n_pairs=n_pairs, seed=seed), **choices)
    write_text_atomically(out / PROTOCOL_FILE, json.dumps(asdict(protocol), indent=1) + "\n")
    return protocol


def choose_rows(scores: pa.Table, selected: Rows, against: str, other: Rows | None = None) -> tuple[Rows, Rows]:
    """The selected rows and the control rows that pairs are drawn from: those with a score, in ascending order.

    other: the rows of another selection. Rows that both keep say nothing about either, so they are left out.
    Raises SettingsError where one side would be empty.
    """
    usable = scores["row"].to_numpy()[pc.equal(scores["status"], "ok").to_numpy()]
    kept = np.intersect1d(selected, usable)
    if other is not None:
        control = np.intersect1d(other, usable)
        kept, control = np.setdiff1d(kept, control), np.setdiff1d(control, kept)
    else:
        control = np.setdiff1d(usable, kept) if against == "left" else usable
    if not len(kept) or not len(control):
        raise SettingsError(f"against={against}: nothing to compare, as one side has no rows; compare with another")
    return kept, control


def draw_pairs(scores: pa.Table, kept: Rows, control: Rows, *, n_pairs: int, seed: int) -> tuple[Pair, ...]:
    """The pairs in the order in which every judge sees them; the same seed gives the same pairs with other tokens.

    There are fewer than n_pairs where the selected rows or their sources run out. Raises SettingsError where there
    is none.
    """
    rng = np.random.default_rng(seed)
    pairs = _seat(rng, list(islice(_match(rng, scores["source"], kept, control), n_pairs)))
    if not pairs:
        raise SettingsError("no source has rows on both sides, so no pair can be drawn; compare with another control")
    rows = rng.permutation(np.union1d(kept, control))[:_MAX_LOOKED_AT]
    questions = scores["question"].take(pa.array(rows)).to_pylist()
    checked = [row for row, text in zip(rows.tolist(), questions, strict=True) if len(set(text)) >= _MIN_CHARS]
    checks = _seat(rng, [(row, row) for row in checked[: max(_MIN_CHECKS, len(pairs) // BLOCK)]])
    for number, check in enumerate(checks):
        pairs.insert(number * (BLOCK + 1) + int(rng.integers(1, BLOCK + 1)), check)
    return tuple(pairs)


def _match(rng: np.random.Generator, source: pa.ChunkedArray, kept: Rows, control: Rows) -> Iterator[tuple[int, int]]:
    """Every selected row, in random order, with a random control of its source: no row twice on its side."""
    codes = pc.rank(source, tiebreaker="dense").to_numpy()
    waiting = defaultdict[int, list[int]](list)
    for row in rng.permutation(control).tolist():
        waiting[codes[row]].append(row)
    for row in rng.permutation(kept).tolist():
        others = waiting[codes[row]]
        idx = next((idx for idx, other in enumerate(others) if other != row), None)
        if idx is not None:
            yield row, others.pop(idx)


def _seat(rng: np.random.Generator, matched: Sequence[tuple[int, int]]) -> list[Pair]:
    """Pairs whose target is the first of each two rows: as often on one side as on the other, in random order."""
    pairs = []
    for idx, (row, other) in zip(rng.permutation(np.arange(len(matched)) % 2).tolist(), matched, strict=True):
        first, second = (row, other) if SIDES[idx] == "first" else (other, row)
        pairs.append(Pair(token_hex(8), first, second, SIDES[idx]))
    return pairs


def _describe(selection: Selection) -> str:
    sha256_of_rows = sha256(np.sort(selection.indices).astype("<i8").tobytes()).hexdigest()
    return f"{len(selection)} rows by {selection.column}, rule {selection.rule} ({sha256_of_rows[:8]})"

"""The sample that calibration works on: some hundred rows of every source, and planted copies of them. No torch here."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from delta_attnmask.calibrating.defects import DEFECTS, Donors
from delta_attnmask.records import Record

_MIN_PER_KIND = 20  # fewer pairs tell nothing


@dataclass(frozen=True)
class Planted:
    """Originals, and copies with one defect each.

    records: all of them, numbered anew from 0; what is scored.
    original: for each record the number of its original (its own for originals).
    kind: for each record its defect; "" for originals.
    half: for each record "choose" or "report", the same for an original and its copies.
    """

    records: list[Record]
    original: list[int]
    kind: list[str]
    half: list[str]

    @property
    def kinds(self) -> list[str]:
        return sorted(set(self.kind) - {""})


def stratified_sample(records: Iterable[Record], n_rows: int, seed: int) -> list[Record]:
    """Up to `n_rows` good records, shared out over the sources: small sources whole, large ones by the same share."""
    rng = random.Random(seed)
    by_source: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if not record.reason:
            by_source[record.source].append(record)
    chosen: list[Record] = []
    remaining = n_rows
    for n_left, source in zip(range(len(by_source), 0, -1), sorted(by_source, key=lambda s: (len(by_source[s]), s)), strict=True):
        rows = by_source[source]
        share = min(len(rows), remaining // n_left)
        chosen += rng.sample(rows, share)
        remaining -= share
    return sorted(chosen, key=lambda record: record.row)


def plant(originals: Sequence[Record], donors: Donors, copies_per_row: int, seed: int) -> Planted:
    """Give each original some copies, each with another defect; kinds take turns, so that all get their share.

    Kinds that fewer than 20 rows can have are left out.
    """
    rng = random.Random(seed)
    usable: dict[str, list[tuple[int, Record]]] = defaultdict(list)
    planned: dict[int, int] = defaultdict(int)
    copies = [(index, kind, DEFECTS[kind](record, donors, rng)) for index, record in enumerate(originals) for kind in DEFECTS]
    rng.shuffle(copies)
    for index, kind, copy in sorted(copies, key=lambda entry: _rarity(entry[1], copies)):
        if copy is not None and planned[index] < copies_per_row:
            usable[kind].append((index, copy))
            planned[index] += 1
    planted = Planted([], [], [], [])
    for index, record in enumerate(originals):
        _add(planted, record, index, "", originals)
    for kind in sorted(kind for kind, pairs in usable.items() if len(pairs) >= _MIN_PER_KIND):
        for index, copy in usable[kind]:
            _add(planted, copy, index, kind, originals)
    return planted


def _rarity(kind: str, copies: Sequence[tuple[int, str, Record | None]]) -> int:
    """Kinds that few rows can have choose their rows first."""
    return sum(1 for _, other, copy in copies if other == kind and copy is not None)


def _add(planted: Planted, record: Record, original: int, kind: str, originals: Sequence[Record]) -> None:
    planted.records.append(replace(record, row=len(planted.records)))
    planted.original.append(original)
    planted.kind.append(kind)
    # The row's own hash decides, so that the halves don't depend on the order of the data.
    planted.half.append("choose" if int(originals[original].key[:8], 16) % 2 == 0 else "report")

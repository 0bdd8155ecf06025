"""The sample that calibration works on: some hundred rows of all sources, and planted copies of them. No torch."""

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
    by_size = sorted(by_source, key=lambda source: (len(by_source[source]), source))
    for n_left, source in zip(range(len(by_size), 0, -1), by_size, strict=True):
        rows = by_source[source]
        share = min(len(rows), remaining // n_left)
        chosen += rng.sample(rows, share)
        remaining -= share
    return sorted(chosen, key=lambda record: record.row)


def plant(originals: Sequence[Record], donors: Donors, copies_per_row: int, seed: int) -> Planted:
    """Give each original some copies, each with another defect; the kinds that have the fewest copies so far go first.

    Kinds that fewer than 20 rows got are left out.
    """
    rng = random.Random(seed)
    pairs: dict[str, list[tuple[int, Record]]] = {kind: [] for kind in DEFECTS}
    for index in rng.sample(range(len(originals)), len(originals)):
        copies = {kind: copy for kind in DEFECTS if (copy := DEFECTS[kind](originals[index], donors, rng)) is not None}
        for kind in sorted(copies, key=lambda kind: len(pairs[kind]))[:copies_per_row]:
            pairs[kind].append((index, copies[kind]))
    planted = Planted([], [], [], [])
    for index, record in enumerate(originals):
        _add(planted, record, index, "", originals)
    for kind in sorted(kind for kind in pairs if len(pairs[kind]) >= _MIN_PER_KIND):
        for index, copy in sorted(pairs[kind], key=lambda pair: pair[0]):
            _add(planted, copy, index, kind, originals)
    return planted


def _add(planted: Planted, record: Record, original: int, kind: str, originals: Sequence[Record]) -> None:
    planted.records.append(replace(record, row=len(planted.records)))
    planted.original.append(original)
    planted.kind.append(kind)
    # The row's own hash decides, so that the halves don't depend on the order of the data.
    planted.half.append("choose" if int(originals[original].key[:8], 16) % 2 == 0 else "report")

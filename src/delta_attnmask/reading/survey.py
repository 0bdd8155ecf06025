"""What a data set holds and what is wrong with it, found without a model. No torch here."""

import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.copies import Firsts, first_alike, text_key
from delta_attnmask.reading.faults import Faults, count_fault
from delta_attnmask.reading.formats import read_record
from delta_attnmask.reading.images import iter_images
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record

_ROWS_AT_ONCE = 256
_N_WATCHED = 1000  # rows of a file, to find keys that nothing reads


@dataclass
class Survey:
    """Counts over a data set; `turns` counts rows by their number of turns, `sources` rows by source, failed ones too.

    firsts: for each row the first one that says the same (`find_copies`).
    failed: every row that can't be used: row, id, source, reason_code, reason.
    unread_keys: keys that nothing reads, with how many of the first 1,000 rows of each file have them.
    """

    n_rows: int = 0
    n_ok: int = 0
    n_images: int = 0
    n_text_only: int = 0
    elapsed_s: float = 0.0
    sources: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    faults: Faults = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    firsts: Firsts = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    unread_keys: Counter[str] = field(default_factory=Counter)

    @property
    def n_failed(self) -> int:
        return self.n_rows - self.n_ok

    @property
    def duplicates(self) -> dict[int, int]:
        """Rows that say what an earlier one says, with that one."""
        later = np.flatnonzero(self.firsts != np.arange(len(self.firsts)))
        return dict(zip(later.tolist(), self.firsts[later].tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the counts, every duplicate and every row that can't be used."""
        return {
            "n_rows": self.n_rows,
            "n_ok": self.n_ok,
            "n_failed": self.n_failed,
            "n_text_only": self.n_text_only,
            "n_images": self.n_images,
            "sources": dict(self.sources),
            "turns": dict(self.turns),
            "unread_keys": dict(self.unread_keys),
            "duplicates": [{"row": row, "first": first} for row, first in self.duplicates.items()],
            "failed": self.failed,
        }

    def add(self, record: Record, error: RowError | None) -> None:
        self.n_rows += 1
        self.sources[record.source] += 1
        if error:
            count_fault(self.faults, record.row, error.code, error.detail)
            about = {"row": record.row, "id": record.id, "source": record.source}
            self.failed.append(about | {"reason_code": str(error.code), "reason": error.detail})
        else:
            self.n_ok += 1
            self.turns[len(record.turns)] += 1
            self.n_images += len(record.images)
            self.n_text_only += not record.images


def survey(dataset: Rows, *, load_images: bool = True, on_row: Callable[[], object] = lambda: None) -> Survey:
    """Read every row, and decode every image unless asked not to; `on_row` is called after each row."""
    found, keys, started = Survey(), array("Q"), time.perf_counter()
    for record, error in _find_faults(dataset, load_images):
        found.add(record, error)
        keys.append(text_key(record))
        on_row()
    found.firsts = first_alike(dataset, keys, read_images=load_images)
    found.unread_keys = find_unread_keys(dataset)
    found.elapsed_s = time.perf_counter() - started
    return found


def find_unread_keys(dataset: Rows) -> Counter[str]:
    """Keys that the rows' formats don't read, counted over the first 1,000 rows of each file."""
    unread = Counter[str]()
    for part in dataset.parts:
        for raw in part.container.rows(0, _N_WATCHED):
            if isinstance(raw.value, dict):
                watched = _Watched(raw.value)
                record = read_record(part.format, raw._replace(value=watched))
                if record.reason_code in {"", ReasonCode.IMAGE_COUNT}:  # other faults end the reading early
                    unread.update(map(str, watched.keys() - watched.asked))
    return unread


class _Watched(dict[str, Any]):
    """A row that remembers which of its keys were asked for."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.asked: set[object] = set()

    def __contains__(self, key: object) -> bool:
        self.asked.add(key)
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def _find_faults(dataset: Rows, load_images: bool) -> Iterator[tuple[Record, RowError | None]]:
    def find_fault(record: Record) -> RowError | None:
        if record.error or not load_images:
            return record.error
        try:
            for _ in iter_images(record.images, dataset.load_image):
                pass
        except RowError as error:
            return error
        return None

    rest = iter(dataset)
    with ThreadPoolExecutor(os.cpu_count()) as decoders:
        while records := list(islice(rest, _ROWS_AT_ONCE)):
            yield from zip(records, decoders.map(find_fault, records), strict=True)

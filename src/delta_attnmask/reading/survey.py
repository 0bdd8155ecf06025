"""What a data set holds and what is wrong with it, found without a model. No torch here."""

import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from delta_attnmask.errors import RowError
from delta_attnmask.reading.faults import Faults, count_fault
from delta_attnmask.reading.images import iter_images
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record

_ROWS_AT_ONCE = 256


@dataclass
class Survey:
    """Counts over a data set; `turns` counts rows by their number of turns, `sources` rows by source, failed ones too.

    n_duplicates: rows whose bytes already came in an earlier row.
    """

    n_rows: int = 0
    n_ok: int = 0
    n_images: int = 0
    n_text_only: int = 0
    n_duplicates: int = 0
    elapsed_s: float = 0.0
    sources: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    faults: Faults = field(default_factory=dict)

    @property
    def n_failed(self) -> int:
        return self.n_rows - self.n_ok

    def add(self, record: Record, error: RowError | None) -> None:
        self.n_rows += 1
        self.sources[record.source] += 1
        if error:
            count_fault(self.faults, record.row, error.code, error.detail)
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
        keys.append(int(record.key[:16], 16))
        on_row()
    found.n_duplicates = len(keys) - len(np.unique(np.array(keys)))
    found.elapsed_s = time.perf_counter() - started
    return found


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

"""Rows that say the same: equal turns and the same images, whatever their ids and files are called. No torch here."""

import json
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import RowError
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import ImageRef, Record

Firsts = NDArray[np.int64]  # for each row the first one that says the same, which may be itself

_CACHED = 1 << 16  # images whose hash is remembered


def find_copies(dataset: Rows) -> Firsts:
    """The first row that says what a row says, for each row. [n_rows]

    Reads the images of those rows alone whose turns another row has too.
    """
    return first_alike(dataset, list(map(text_key, dataset)))


def text_key(record: Record) -> int:
    """A number that rows with equal turns share; of a row that can't be used, those with equal bytes."""
    turns = [(turn.role, turn.parts) for turn in record.turns]
    return _hash(json.dumps(turns, ensure_ascii=False) if turns else f"row {record.key}")


def first_alike(dataset: Rows, text_keys: Sequence[int], *, read_images: bool = True) -> Firsts:
    """The same from the rows' `text_key`s. read_images: compare images by their bytes, not by their references."""
    texts = np.array(text_keys, dtype=np.uint64)
    _, codes, counts = np.unique(texts, return_inverse=True, return_counts=True)
    of_image = lru_cache(_CACHED)(lambda ref: hash_image(dataset, ref) if read_images else _name_image(ref))
    keys = texts.copy()
    shared = set(np.flatnonzero(counts[codes] > 1).tolist())
    last = max(shared, default=-1)
    for record in dataset.records(0, last + 1):
        if record.row in shared and record.images:
            keys[record.row] = _hash(f"{texts[record.row]} {[of_image(ref) for ref in record.images]}")
    _, firsts, codes = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(firsts[codes], dtype=np.int64)


def hash_image(dataset: Rows, ref: ImageRef) -> str:
    """A text that images of the same bytes share; where they can't be read, those of the same reference."""
    try:
        return blake2b(dataset.read_image_bytes(ref), digest_size=16).hexdigest()
    except RowError:
        return _name_image(ref)


def _name_image(ref: ImageRef) -> str:
    """What an image is called by: its path, its own bytes, or where it stands."""
    data = "" if ref.data is None else blake2b(ref.data, digest_size=16).hexdigest()
    return f"{ref.part} {ref.path or data or ref.place or id(ref.picture)}"


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())

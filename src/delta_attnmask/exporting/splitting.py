"""Set a test split aside of which no image, and no text-only conversation, stays in the rest. No torch here."""

from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from posixpath import normpath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delta_attnmask.errors import RowError, SettingsError
from delta_attnmask.exporting.run_export import export_rows
from delta_attnmask.reading.copies import text_key
from delta_attnmask.reading.rows import FileRows, Rows, load_rows
from delta_attnmask.records import ImageRef, Record
from delta_attnmask.selecting.budgets import share_out
from delta_attnmask.selection import Budget

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Positions of rows in the input, ascending; rows that can't be used are in `rest`. test: [n], rest: [m]."""

    test: Numbers
    rest: Numbers


def split_rows(
    rows: Any,
    amount: str | float | Budget,
    *,
    images: str | Path | None = None,
    format: str | None = None,
    limit: int | None = None,
    allow_outside: bool = False,
    seed: int = 0,
) -> Split:
    """Choose the rows of a test split at random, with the mix of sources that the data has.

    Rows that share an image stay together, also through a third row, and so do text-only rows of the same words. The
    split has at most the amount wanted: a group that would exceed it is left in the rest.
    rows, images, format, limit, allow_outside: as for `load_rows`. amount: "10%" or 0.1 of the rows that can be used,
    or a number of rows.

    Raises SettingsError where the split or the rest would be empty.
    """
    source = load_rows(rows, images, format=format, limit=limit, allow_outside=allow_outside)
    groups, sources = group_rows(source)
    is_usable = groups >= 0
    n_usable, budget = int(is_usable.sum()), Budget.of(amount)
    n_test = n_usable if (budget.n_rows or 0) >= n_usable else budget.resolve(n_usable)
    if n_test >= n_usable:
        raise SettingsError(f"split: {budget} of {n_usable} rows that can be used leaves none for training; take fewer")
    chosen = _draw(groups[is_usable], np.unique(sources[is_usable], return_inverse=True)[1], n_test, seed)
    if not len(chosen):
        raise SettingsError(
            f"split: the smallest group of rows that share an image has more than {n_test} rows; take more rows, or "
            "name a file of your own (--test)"
        )
    is_test = np.zeros(len(groups), dtype=bool)
    is_test[np.flatnonzero(is_usable)[chosen]] = True
    return Split(np.flatnonzero(is_test), np.flatnonzero(~is_test))


def group_rows(rows: Rows) -> tuple[Numbers, NDArray[np.str_]]:
    """For each row the number of its group (-1 if it can't be used), and its source.

    Rows of one group share images, directly or through others. An image is known by its path, or by its bytes if the
    data holds them; a row without images by its words.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers: dict[Hashable, int] = {}
    edges = list[tuple[int, int]]()
    sources, is_usable = list[str](), list[bool]()
    for record in rows:
        sources.append(record.source)
        found = _identities(record, rows)
        edges += [(record.row, numbers.setdefault(one, len(numbers))) for one in found]
        is_usable.append(bool(found))
    n_rows, size = len(sources), len(sources) + len(numbers)
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (ends[0], n_rows + ends[1])), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][:n_rows]
    return np.where(is_usable, labels, -1).astype(np.int64), np.array(sources, dtype=np.str_)


def count_shared(test: Rows, data: Rows) -> int:
    """How many rows of a test set share an image with some data, or if they have none, their words."""
    known = {one for record in data for one in _identities(record, data)}
    return sum(not known.isdisjoint(_identities(record, test)) for record in test)


def write_split(dataset: FileRows, split: Split, test: Path, rest: Path) -> None:
    """Write both parts in the input's own format, rows unchanged; SettingsError where a file is there already."""
    refuse_existing(test, rest)
    for rows, path in ((split.test, test), (split.rest, rest)):
        export_rows(dataset, rows, path, to=None)


def refuse_existing(test: Path, rest: Path) -> None:
    """Raise SettingsError where one of the files is there, or both are the same."""
    if test.absolute() == rest.absolute():
        raise SettingsError(f"{test}: the test split and the rest need two names")
    for path in (test, rest):
        if path.exists():
            raise SettingsError(f"{path} exists and isn't replaced; choose another name, or remove it")


def _identities(record: Record, rows: Rows) -> list[Hashable]:
    """What the row shares with others of its group; nothing for a row that can't be used."""
    if record.error:
        return []
    try:
        return [_identify(ref, rows) for ref in record.images] or [text_key(record)]
    except RowError:
        return []


def _identify(ref: ImageRef, rows: Rows) -> Hashable:
    if ref.data is None and ref.place is None and ref.picture is None:
        return str(rows.part_of(ref).images_root), normpath(ref.path)
    return sha256(rows.read_image_bytes(ref)).digest()


def _draw(groups: Numbers, sources: Numbers, n_test: int, seed: int) -> Numbers:
    """Whole groups in random order, while each source's share has room; then any that the rest of the budget has."""
    budgets = share_out(n_test, np.bincount(sources))
    by_group = np.argsort(groups, kind="stable")
    members = np.split(by_group, np.flatnonzero(np.diff(groups[by_group])) + 1)
    order = np.random.default_rng(seed).permutation(len(members)).tolist()
    chosen, later = list[Numbers](), list[Numbers]()
    for number in order:
        found, counts = np.unique(sources[members[number]], return_counts=True)
        if (counts <= budgets[found]).all():
            budgets[found] -= counts
            chosen.append(members[number])
        else:
            later.append(members[number])
    n_left = int(budgets.sum())
    for group in later:
        if len(group) <= n_left:
            chosen.append(group)
            n_left -= len(group)
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)

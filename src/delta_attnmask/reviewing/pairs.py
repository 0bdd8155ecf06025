"""Draws the pairs of a review: matched and balanced by source, sides shuffled, attention checks mixed in."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.reviewing.protocol import SIDES, Kind, Pair, Side, other_side

COLUMNS = ("row", "source", "status", "question", "loss")  # what is read of a run's scores
BLOCK = 10  # pairs, for each of which one is repeated and one shuffled sample is shown
SHEET_ROWS = 12
MIN_WORDS = 6  # fewer words make sense in any order
_MAX_LOOKED_AT = 20_000  # rows, for samples to shuffle
_MIN_DISTANCE = 5  # pairs between one and its repetition

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pools:
    """Rows in ascending order, all of them usable.

    selected, control: what pairs are drawn from. Rows that both selections keep say nothing about either, so against
        another selection these are the rows that only one of the two keeps.
    selected_set, control_set: what contact sheets are drawn from: the whole selections.
    """

    selected: Rows
    control: Rows
    selected_set: Rows
    control_set: Rows


def choose_pools(scores: pa.Table, selected: Rows, against: str, other: Rows | None = None) -> Pools:
    """Pools for `against`: random rows, left rows, or those of the other selection, whose rows are then given.

    Raises SettingsError where one side would be empty.
    """
    usable = scores["row"].to_numpy()[pc.equal(scores["status"], "ok").to_numpy()]
    kept = np.intersect1d(selected, usable)
    if other is not None:
        control = np.intersect1d(other, usable)
        pools = Pools(np.setdiff1d(kept, control), np.setdiff1d(control, kept), kept, control)
    else:
        control = np.setdiff1d(usable, kept) if against == "left" else usable
        pools = Pools(kept, control, kept, control)
    if not len(pools.selected) or not len(pools.control):
        raise SettingsError(f"against={against}: nothing to compare, as one side has no rows; compare with another")
    return pools


def draw_pairs(scores: pa.Table, pools: Pools, *, n_pairs: int, n_sheets: int, seed: int) -> tuple[Pair, ...]:
    """The pairs in the order in which every judge sees them; the same seed gives the same pairs with other tokens.

    Fewer than n_pairs come out where the sources that both sides share have fewer rows. Raises SettingsError where
    there is none.
    """
    rng = np.random.default_rng(seed)
    compared = list(_draw_compared(rng, scores, pools, n_pairs))
    if not compared:
        raise SettingsError("no source has rows on both sides, so no pair can be drawn; compare with another control")
    shuffled = _draw_shuffled(rng, scores, pools, -(-len(compared) // BLOCK))
    sheets = [_draw_sheet(rng, pools, side) for side in _shuffle_sides(rng, n_sheets)]
    order = _mix(rng, compared, list(shuffled))
    for place, sheet in zip(np.linspace(len(order), 0, n_sheets + 2)[1:-1].round(), sheets, strict=True):
        order.insert(int(place), sheet)
    return tuple(order)


def _draw_compared(rng: np.random.Generator, scores: pa.Table, pools: Pools, n_pairs: int) -> Iterator[Pair]:
    """Pairs within sources, which take turns, so that whoever stops early has judged all alike."""
    selected, control = (_group_by_source(scores, rows) for rows in (pools.selected, pools.control))
    shared = sorted(set(selected) & set(control))
    counts = _share_evenly([min(len(selected[source]), len(control[source])) for source in shared], n_pairs)
    matched = [
        [(source, *rows) for rows in _match(rng, selected[source], control[source], n)]
        for source, n in zip(shared, counts, strict=True)
    ]
    rounds = [[found for found in one if found is not None] for one in zip_longest(*matched)]
    drawn = [one[idx] for one in rounds for idx in rng.permutation(len(one)).tolist()]
    for (source, kept, other), side in zip(drawn, _shuffle_sides(rng, len(drawn)), strict=True):
        yield _make_pair("compare", source, side, (kept,), (other,))


def _group_by_source(scores: pa.Table, rows: Rows) -> dict[str, Rows]:
    sources = scores["source"].take(pa.array(rows)).to_numpy(zero_copy_only=False)
    names, codes, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    groups = np.split(rows[np.argsort(codes, kind="stable")], np.cumsum(sizes)[:-1])
    return dict(zip(names.tolist(), groups, strict=True))


def _share_evenly(rooms: Sequence[int], n: int) -> list[int]:
    """n shared out one by one among those that still have room."""
    counts = [0] * len(rooms)
    while n > 0 and (free := [idx for idx, room in enumerate(rooms) if counts[idx] < room]):
        for idx in free[:n]:
            counts[idx] += 1
        n -= len(free)
    return counts


def _match(rng: np.random.Generator, selected: Rows, control: Rows, n: int) -> Iterator[tuple[int, int]]:
    """n random pairs, each row once on its side, and none with itself."""
    others: list[int] = rng.permutation(control).tolist()
    for row in rng.permutation(selected)[:n].tolist():
        idx = next((idx for idx, other in enumerate(others) if other != row), None)
        if idx is not None:
            yield row, others.pop(idx)


def _shuffle_sides(rng: np.random.Generator, n: int) -> list[Side]:
    """As often the first side as the second, so that a liking for one side favours nobody."""
    return [SIDES[idx] for idx in rng.permutation(np.arange(n) % 2).tolist()]


def _draw_shuffled(rng: np.random.Generator, scores: pa.Table, pools: Pools, n: int) -> Iterator[Pair]:
    """Samples to show against themselves with shuffled words: long questions, and of these the half of lower loss.

    A low loss keeps out most rows that read as if their words were shuffled already.
    """
    usable = np.concatenate([pools.selected, pools.control])
    rows = np.unique(rng.choice(usable, min(_MAX_LOOKED_AT, len(usable)), replace=False))
    questions = scores["question"].take(pa.array(rows)).to_pylist()
    rows = rows[[len(set(question.split())) >= MIN_WORDS for question in questions]]
    loss = np.asarray(scores["loss"].to_numpy(), dtype=np.float64)[rows]
    fluent = rows[np.argsort(loss, kind="stable")][: max(n, len(rows) // 2)]
    chosen = rng.permutation(fluent)[:n].tolist()
    for row, side in zip(chosen, _shuffle_sides(rng, len(chosen)), strict=True):
        yield _make_pair("shuffled", scores["source"][row].as_py(), side, (row,), (row,))


def _draw_sheet(rng: np.random.Generator, pools: Pools, target: Side) -> Pair:
    n = min(SHEET_ROWS, len(pools.selected_set), len(pools.control_set))
    selected, control = (
        tuple(rng.choice(rows, n, replace=False).tolist()) for rows in (pools.selected_set, pools.control_set)
    )
    return _make_pair("sheet", "", target, selected, control)


def _mix(rng: np.random.Generator, compared: Sequence[Pair], shuffled: Iterable[Pair]) -> list[Pair]:
    """A shuffled sample in each block, and a repetition from its first half in the second half of the next one."""
    order: list[Pair] = []
    checks, waiting = iter(shuffled), None
    for start in range(0, len(compared), BLOCK):
        block = list(compared[start : start + BLOCK])
        repeat = _repeat(block[rng.integers(max(1, len(block) - _MIN_DISTANCE))])
        if (check := next(checks, None)) is not None:
            block.insert(int(rng.integers(1, len(block) + 1)), check)
        if waiting is not None:
            block.insert(int(rng.integers(len(block) // 2, len(block) + 1)), waiting)
        order += block
        waiting = repeat if len(block) > _MIN_DISTANCE else None
    return order if waiting is None else [*order, waiting]


def _repeat(pair: Pair) -> Pair:
    """The pair with its sides swapped."""
    swapped = replace(pair, first=pair.second, second=pair.first, target=other_side(pair.target))
    return replace(swapped, kind="repeat", token=secrets.token_hex(8), repeats=pair.token)


def _make_pair(kind: Kind, source: str, target: Side, selected: tuple[int, ...], other: tuple[int, ...]) -> Pair:
    first, second = (selected, other) if target == "first" else (other, selected)
    token = secrets.token_hex(8)
    return Pair(token=token, kind=kind, source=source, first=first, second=second, target=target)

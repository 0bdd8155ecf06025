"""Draws the pairs of a review: matched and balanced by source, sides shuffled, checks of the raters strewn in."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.reviewing.pairs import Pair
from delta_attnmask.reviewing.pools import Pools, Rows
from delta_attnmask.reviewing.protocol import Kind, Side, other_side
from delta_attnmask.selecting.strata import encode

BLOCK = 10  # pairs, for each of which one is repeated and one shuffled sample is shown
SHEET_ROWS = 12
MIN_WORDS = 6  # fewer words make sense in any order
_MAX_LOOKED_AT = 20_000  # rows, for samples to shuffle
_MIN_DISTANCE = 5  # pairs between one and its repetition
_SIDES: tuple[Side, Side] = ("first", "second")


@dataclass(frozen=True)
class Sources:
    """The source of each input row, as a number. [n_rows] names: of the numbers."""

    codes: NDArray[np.int32]
    names: Sequence[str]

    def name(self, row: int) -> str:
        return self.names[int(self.codes[row])]

    def group(self, rows: Rows) -> dict[str, Rows]:
        """The rows of each source that has any, in ascending order."""
        ordered = rows[np.argsort(self.codes[rows], kind="stable")]
        parts = np.split(ordered, np.flatnonzero(np.diff(self.codes[ordered])) + 1)
        return {self.name(int(part[0])): part for part in parts if len(part)}


@dataclass(frozen=True, eq=False)
class _Draft:
    """A pair without its place: `target_rows` stand on the side `target`."""

    kind: Kind
    source: str
    target: Side
    target_rows: tuple[int, ...]
    other_rows: tuple[int, ...]
    repeats: "_Draft | None" = None


def draw_pairs(scores: pa.Table, pools: Pools, *, n_pairs: int, n_sheets: int, seed: int) -> tuple[Pair, ...]:
    """The pairs in the order in which every rater sees them; the same seed gives the same pairs with other tokens.

    Fewer than n_pairs come out where the sources that both sides share have fewer rows. Raises SettingsError where
    there is none.
    """
    rng = np.random.default_rng(seed)
    sources = Sources(*encode(scores, "source"))
    compared = list(_draw_compared(rng, sources, pools, n_pairs))
    if not compared:
        raise SettingsError("no source has rows on both sides, so no pair can be drawn; compare with another control")
    n_blocks = -(-len(compared) // BLOCK)
    shuffled = list(_draw_shuffled(rng, scores, sources, pools, n_blocks))
    sheets = [_draw_sheet(rng, pools, side) for side in _shuffle_sides(rng, n_sheets)]
    return _number(_insert_evenly(_strew(rng, compared, shuffled), sheets))


def _draw_compared(rng: np.random.Generator, sources: Sources, pools: Pools, n_pairs: int) -> Iterator[_Draft]:
    """Pairs within sources, one source after the other, so that whoever stops early has judged all alike."""
    selected, control = sources.group(pools.selected), sources.group(pools.control)
    shared = sorted(set(selected) & set(control))
    counts = _share_evenly([min(len(selected[source]), len(control[source])) for source in shared], n_pairs)
    matched = [
        [(source, *rows) for rows in _match(rng, selected[source], control[source], n)]
        for source, n in zip(shared, counts, strict=True)
    ]
    rounds = [[found for found in one if found is not None] for one in zip_longest(*matched)]
    drawn = [one[idx] for one in rounds for idx in rng.permutation(len(one)).tolist()]
    for (source, kept, other), side in zip(drawn, _shuffle_sides(rng, len(drawn)), strict=True):
        yield _Draft("compare", source, side, (kept,), (other,))


def _share_evenly(rooms: Sequence[int], n: int) -> list[int]:
    """n shared out one by one among those that still have room."""
    counts = [0] * len(rooms)
    while n > 0 and any(count < room for count, room in zip(counts, rooms, strict=True)):
        for idx, room in enumerate(rooms):
            if n > 0 and counts[idx] < room:
                counts[idx] += 1
                n -= 1
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
    return [_SIDES[idx] for idx in rng.permutation(np.arange(n) % 2).tolist()]


def _draw_shuffled(
    rng: np.random.Generator, scores: pa.Table, sources: Sources, pools: Pools, n: int
) -> Iterator[_Draft]:
    """Samples to show against themselves with shuffled words: long questions, and of these the half of lower loss.

    A low loss keeps out most rows that read as if their words were shuffled already.
    """
    usable = np.concatenate([pools.selected, pools.control])
    rows = np.unique(rng.choice(usable, min(_MAX_LOOKED_AT, len(usable)), replace=False))
    questions = scores["question"].take(pa.array(rows)).to_pylist()
    is_long = [len(set(question.split())) >= MIN_WORDS for question in questions]
    rows = rows[np.asarray(is_long, dtype=bool)]
    loss = np.asarray(scores["loss"].to_numpy(), dtype=np.float64)[rows]
    fluent = rows[np.argsort(loss, kind="stable")][: max(n, len(rows) // 2)]
    chosen = rng.permutation(fluent)[:n].tolist()
    for row, side in zip(chosen, _shuffle_sides(rng, len(chosen)), strict=True):
        yield _Draft("shuffled", sources.name(row), side, (row,), (row,))


def _draw_sheet(rng: np.random.Generator, pools: Pools, target: Side) -> _Draft:
    n = min(SHEET_ROWS, len(pools.selected_set), len(pools.control_set))
    selected, control = (
        tuple(rng.choice(rows, n, replace=False).tolist()) for rows in (pools.selected_set, pools.control_set)
    )
    return _Draft("sheet", "", target, selected, control)


def _strew(rng: np.random.Generator, compared: Sequence[_Draft], shuffled: Iterable[_Draft]) -> list[_Draft]:
    """A shuffled sample in each block, and a repetition from its first half in the second half of the next one."""
    order: list[_Draft] = []
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


def _repeat(draft: _Draft) -> _Draft:
    swapped = other_side(draft.target)
    return _Draft("repeat", draft.source, swapped, draft.target_rows, draft.other_rows, repeats=draft)


def _insert_evenly(order: list[_Draft], sheets: Sequence[_Draft]) -> list[_Draft]:
    places = np.linspace(0, len(order), len(sheets) + 2)[1:-1].round().astype(int).tolist()
    for place, sheet in zip(reversed(places), reversed(sheets), strict=True):
        order = [*order[:place], sheet, *order[place:]]
    return order


def _number(order: Sequence[_Draft]) -> tuple[Pair, ...]:
    positions = {draft: position for position, draft in enumerate(order)}
    return tuple(
        Pair(
            position=position,
            token=secrets.token_hex(8),
            kind=draft.kind,
            source=draft.source,
            first=draft.target_rows if draft.target == "first" else draft.other_rows,
            second=draft.other_rows if draft.target == "first" else draft.target_rows,
            target=draft.target,
            repeats=None if draft.repeats is None else positions[draft.repeats],
        )
        for draft, position in positions.items()
    )

"""The pairs of a review: matched and balanced by source, sides shuffled, checks of the judges mixed in and counted.

A careless judge shows on pairs whose outcome is known: words shuffled, and pairs shown twice with sides swapped.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from delta_attnmask.errors import SettingsError
from delta_attnmask.reviewing.protocol import QUESTIONS, SIDES, Answers, Kind, Pair, Side, other_side

COLUMNS = ("row", "source", "status", "question", "loss")  # what is read of a run's scores
BLOCK = 10  # pairs, for each of which one is repeated and one shuffled sample is shown
MIN_WORDS = 6  # fewer words make sense in any order
_MAX_LOOKED_AT = 20_000  # rows, for samples to shuffle
_MIN_DISTANCE = 5  # pairs between one and its repetition

# Fixed before anybody judges; docs/review.md says how often they wrong a careful judge and let a careless one pass.
_SHUFFLED_QUESTIONS = ("clarity", "overall")  # only these have an answer that is plainly right
_MIN_SHUFFLED, _MIN_PASSED = 4, 0.75
_MIN_REPEATED, _MAX_CONTRADICTED = 8, 0.5

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pools:
    """Rows that pairs are drawn from, in ascending order, all of them usable.

    Rows that both selections keep say nothing about either, so against another selection these are the rows that only
    one of the two keeps.
    """

    selected: Rows
    control: Rows


def choose_pools(scores: pa.Table, selected: Rows, against: str, other: Rows | None = None) -> Pools:
    """Pools for `against`: random rows, left rows, or those of the other selection, whose rows are then given.

    Raises SettingsError where one side would be empty.
    """
    usable = scores["row"].to_numpy()[pc.equal(scores["status"], "ok").to_numpy()]
    kept = np.intersect1d(selected, usable)
    if other is not None:
        control = np.intersect1d(other, usable)
        pools = Pools(np.setdiff1d(kept, control), np.setdiff1d(control, kept))
    else:
        pools = Pools(kept, np.setdiff1d(usable, kept) if against == "left" else usable)
    if not len(pools.selected) or not len(pools.control):
        raise SettingsError(f"against={against}: nothing to compare, as one side has no rows; compare with another")
    return pools


def draw_pairs(scores: pa.Table, pools: Pools, *, n_pairs: int, seed: int) -> tuple[Pair, ...]:
    """The pairs in the order in which every judge sees them; the same seed gives the same pairs with other tokens.

    Fewer than n_pairs come out where the sources that both sides share have fewer rows. Raises SettingsError where
    there is none.
    """
    rng = np.random.default_rng(seed)
    compared = list(_draw_compared(rng, scores, pools, n_pairs))
    if not compared:
        raise SettingsError("no source has rows on both sides, so no pair can be drawn; compare with another control")
    shuffled = _draw_shuffled(rng, scores, pools, -(-len(compared) // BLOCK))
    return tuple(_mix(rng, compared, shuffled))


@dataclass(frozen=True)
class Checks:
    """How a judge did on pairs whose outcome is known.

    n_shuffled: answers about shuffled words. n_passed: those for the sample whose words are in order.
    n_repeated: questions where the judge chose a side both times. n_contradicted: those with the other sample chosen
        the second time. A tie or "can't tell" contradicts nothing.
    """

    n_shuffled: int
    n_passed: int
    n_repeated: int
    n_contradicted: int

    @property
    def fault(self) -> str:
        """Why the judgements don't count; empty if they do. Too few checks are no reason."""
        if self.n_shuffled >= _MIN_SHUFFLED and self.n_passed < _MIN_PASSED * self.n_shuffled:
            return f"told shuffled words from ordered ones in only {self.n_passed} of {self.n_shuffled} answers"
        if self.n_repeated >= _MIN_REPEATED and self.n_contradicted >= _MAX_CONTRADICTED * self.n_repeated:
            return f"chose the other sample in {self.n_contradicted} of {self.n_repeated} answers about repeated pairs"
        return ""

    @property
    def is_checked(self) -> bool:
        """Whether there were enough checks of one kind to find a fault."""
        return self.n_shuffled >= _MIN_SHUFFLED or self.n_repeated >= _MIN_REPEATED


def check_rater(pairs: Sequence[Pair], answers: Answers) -> Checks:
    """Count one judge's checks."""
    passed = [
        answers[pair.token, question] == pair.target
        for pair in pairs
        if pair.kind == "shuffled"
        for question in _SHUFFLED_QUESTIONS
        if (pair.token, question) in answers
    ]
    both = [
        (answers.get((pair.repeats, question.name)), answers.get((pair.token, question.name)))
        for pair in pairs
        if pair.kind == "repeat"
        for question in QUESTIONS
    ]
    contradicted = [before == after for before, after in both if before in SIDES and after in SIDES]  # sides swapped
    return Checks(len(passed), sum(passed), len(contradicted), sum(contradicted))


def _draw_compared(rng: np.random.Generator, scores: pa.Table, pools: Pools, n_pairs: int) -> Iterator[Pair]:
    """Pairs within sources, which take turns, so that whoever stops early has judged all alike."""
    selected, control = (_group_by_source(scores, rows) for rows in (pools.selected, pools.control))
    matched = [
        [(source, *rows) for rows in _match(rng, selected[source], control[source], n_pairs)]
        for source in sorted(selected.keys() & control.keys())
    ]
    rounds = [[found for found in one if found is not None] for one in zip_longest(*matched)]
    drawn = [one[idx] for one in rounds for idx in rng.permutation(len(one)).tolist()][:n_pairs]
    for (source, kept, other), side in zip(drawn, _shuffle_sides(rng, len(drawn)), strict=True):
        yield _make_pair("compare", source, side, kept, other)


def _group_by_source(scores: pa.Table, rows: Rows) -> dict[str, Rows]:
    sources = scores["source"].take(pa.array(rows)).to_numpy(zero_copy_only=False)
    names, codes, sizes = np.unique(sources, return_inverse=True, return_counts=True)
    groups = np.split(rows[np.argsort(codes, kind="stable")], np.cumsum(sizes)[:-1])
    return dict(zip(names.tolist(), groups, strict=True))


def _match(rng: np.random.Generator, selected: Rows, control: Rows, n: int) -> Iterator[tuple[int, int]]:
    """At most n random pairs, each row once on its side, and none with itself."""
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
        yield _make_pair("shuffled", scores["source"][row].as_py(), side, row, row)


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


def _make_pair(kind: Kind, source: str, target: Side, selected: int, other: int) -> Pair:
    first, second = (selected, other) if target == "first" else (other, selected)
    token = secrets.token_hex(8)
    return Pair(token=token, kind=kind, source=source, first=first, second=second, target=target)

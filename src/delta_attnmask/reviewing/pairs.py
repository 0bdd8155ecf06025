"""A review as it was drawn: what was compared with what, and the pairs in the order in which raters see them."""

from collections.abc import Mapping
from dataclasses import dataclass

from delta_attnmask.reviewing.protocol import Answer, Kind, Side, questions_of


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sides that a rater compares.

    position: place in the order, from 0; the same for every rater.
    token: random name under which pages and images know the pair; it says nothing about it.
    kind: compare: selected against control; repeat: such a pair again, sides swapped; shuffled: a sample against
        itself with its words shuffled; sheet: two sets as contact sheets.
    source: of both samples; empty for sheets.
    first, second: input rows of the sides; one each, or a set for a sheet.
    target: the side that holds the selected sample or set, or the sample whose words are in order.
    repeats: position of the pair that this one repeats.
    """

    position: int
    token: str
    kind: Kind
    source: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    target: Side
    repeats: int | None = None

    @property
    def rows(self) -> tuple[int, ...]:
        return self.first + self.second

    def side(self, side: Side) -> tuple[int, ...]:
        return self.first if side == "first" else self.second


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a review compares; with the run it determines the pairs.

    manifest_sha256: of the run whose rows are shown. selection_sha256: of the rows of the selection under review.
    selection: what the selection was, in words. against: random, left, or what the other selection was.
    against_sha256: of the other selection's rows; empty for random and left.
    seed: of the draw. n_pairs: pairs of a selected sample and a control. n_sheets: pairs of sets.
    """

    manifest_sha256: str
    selection_sha256: str
    selection: str
    against: str
    against_sha256: str
    seed: int
    n_pairs: int
    n_sheets: int


def is_judged(pair: Pair, answers: Mapping[tuple[int, str], Answer]) -> bool:
    """Whether every question of the pair has an answer."""
    return all((pair.position, question.name) in answers for question in questions_of(pair.kind))

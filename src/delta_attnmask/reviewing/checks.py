"""Tells careless raters by pairs whose outcome is known: words shuffled, and pairs shown twice with sides swapped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from delta_attnmask.reviewing.pairs import Pair
from delta_attnmask.reviewing.protocol import PAIR_QUESTIONS, SHUFFLED_QUESTIONS, Answer, other_side

# Fixed before anybody judges; docs/review.md says how often they wrong a careful rater and let a careless one pass.
MIN_SHUFFLED = 4
MIN_PASSED = 0.75
MIN_REPEATED = 8
MAX_CONTRADICTED = 0.5

Answers = Mapping[tuple[int, str], Answer]


@dataclass(frozen=True)
class Checks:
    """How one rater did.

    n_shuffled: answers about shuffled words. n_passed: those for the sample whose words are in order.
    n_repeated: questions where the rater chose a side both times. n_contradicted: those with the other sample chosen
        the second time. A tie or "can't tell" contradicts nothing.
    """

    n_shuffled: int
    n_passed: int
    n_repeated: int
    n_contradicted: int

    @property
    def fault(self) -> str:
        """Why the rater's judgements don't count; empty if they do. Too few checks are no reason."""
        if self.n_shuffled >= MIN_SHUFFLED and self.n_passed < MIN_PASSED * self.n_shuffled:
            return f"told shuffled words from ordered ones in only {self.n_passed} of {self.n_shuffled} answers"
        if self.n_repeated >= MIN_REPEATED and self.n_contradicted >= MAX_CONTRADICTED * self.n_repeated:
            return f"chose the other sample in {self.n_contradicted} of {self.n_repeated} answers about repeated pairs"
        return ""

    @property
    def is_checked(self) -> bool:
        """Whether there were enough checks of one kind to find a fault."""
        return self.n_shuffled >= MIN_SHUFFLED or self.n_repeated >= MIN_REPEATED


def check_rater(pairs: Sequence[Pair], answers: Answers) -> Checks:
    """Count one rater's checks."""
    shuffled = [
        answers[pair.position, question] == pair.target
        for pair in pairs
        if pair.kind == "shuffled"
        for question in SHUFFLED_QUESTIONS
        if (pair.position, question) in answers
    ]
    repeated = [same for pair in pairs if pair.kind == "repeat" for same in _compare_with_first_time(pair, answers)]
    return Checks(len(shuffled), sum(shuffled), len(repeated), repeated.count(False))


def _compare_with_first_time(pair: Pair, answers: Answers) -> list[bool]:
    """For each question with a side chosen both times, whether it was the same sample's."""
    found = []
    for question in PAIR_QUESTIONS:
        before, after = (answers.get((position or 0, question.name)) for position in (pair.repeats, pair.position))
        if before in ("first", "second") and after in ("first", "second"):
            found.append(other_side(before) == after)
    return found

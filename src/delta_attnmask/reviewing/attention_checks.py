"""Reveals careless judges by pairs whose outcome is known: words shuffled, and pairs shown twice with sides swapped."""

from collections.abc import Sequence
from dataclasses import dataclass

from delta_attnmask.reviewing.protocol import PAIR_QUESTIONS, SHUFFLED_QUESTIONS, SIDES, Answers, Pair, other_side

# Fixed before anybody judges; docs/review.md says how often they wrong a careful judge and let a careless one pass.
MIN_SHUFFLED = 4
MIN_PASSED = 0.75
MIN_REPEATED = 8
MAX_CONTRADICTED = 0.5


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
    """Count one judge's checks."""
    shuffled = [
        answers[pair.token, question] == pair.target
        for pair in pairs
        if pair.kind == "shuffled"
        for question in SHUFFLED_QUESTIONS
        if (pair.token, question) in answers
    ]
    repeated = [same for pair in pairs if pair.repeats for same in _compare(pair, answers)]
    return Checks(len(shuffled), sum(shuffled), len(repeated), repeated.count(False))


def _compare(pair: Pair, answers: Answers) -> list[bool]:
    """For each question with a side chosen both times, whether it was the same sample's."""
    given = [(answers.get((pair.repeats, one.name)), answers.get((pair.token, one.name))) for one in PAIR_QUESTIONS]
    return [other_side(before) == after for before, after in given if before in SIDES and after in SIDES]

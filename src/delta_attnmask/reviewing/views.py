"""What a rater sees next, as plain values for the templates; nothing in it depends on which side was selected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from delta_attnmask.reviewing.pairs import Pair, is_judged
from delta_attnmask.reviewing.protocol import KEYS, Answer, Question, Side, questions_of
from delta_attnmask.reviewing.samples import Sample, SampleBook, ShownTurn

_SIDES: tuple[Side, Side] = ("first", "second")
_LABELS: dict[Answer, str] = {"first": "{} 1", "second": "{} 2", "equal": "Equal", "unknown": "Can't tell"}

Answers = Mapping[tuple[int, str], Answer]


@dataclass(frozen=True)
class Choice:
    """A button. answer: what it sends. label: what it says. key: what does the same on a keyboard."""

    answer: Answer
    label: str
    key: str


@dataclass(frozen=True)
class Step:
    """A question of the pair, and what was answered to it; empty if nothing yet."""

    question: Question
    answered: str


@dataclass(frozen=True)
class ShownSample:
    """A sample with the addresses of its images."""

    turns: tuple[ShownTurn, ...]
    images: tuple[str, ...]


@dataclass(frozen=True)
class ShownSide:
    """name: Sample 1 or Set 2. samples: one, or those of a set."""

    name: str
    samples: tuple[ShownSample, ...]


@dataclass(frozen=True)
class PairView:
    """One pair and its question. number: the pair's, from 1, of n_pairs in all; checks of the rater count as pairs."""

    token: str
    is_sheet: bool
    number: int
    n_pairs: int
    n_judged: int
    sides: tuple[ShownSide, ...]
    steps: tuple[Step, ...]
    step_idx: int
    choices: tuple[Choice, ...]
    can_undo: bool

    @property
    def question(self) -> Question:
        return self.steps[self.step_idx].question

    @property
    def images(self) -> list[str]:
        return [address for side in self.sides for sample in side.samples for address in sample.images]


def find_next(pairs: Sequence[Pair], answers: Answers, *, after: int = -1) -> Pair | None:
    """The rater's first pair behind `after` with a question left; None if there is none."""
    return next((pair for pair in pairs[after + 1 :] if not is_judged(pair, answers)), None)


def view_pair(pair: Pair, pairs: Sequence[Pair], answers: Answers, book: SampleBook) -> PairView:
    """The pair as the rater sees it now."""
    noun = "Set" if pair.kind == "sheet" else "Sample"
    labels = {answer: label.format(noun) for answer, label in _LABELS.items()}
    steps = tuple(
        Step(question, labels[answers[key]] if (key := (pair.position, question.name)) in answers else "")
        for question in questions_of(pair.kind)
    )
    return PairView(
        token=pair.token,
        is_sheet=pair.kind == "sheet",
        number=pair.position + 1,
        n_pairs=len(pairs),
        n_judged=sum(is_judged(one, answers) for one in pairs),
        sides=tuple(_view_side(pair, side, noun, book) for side in _SIDES),
        steps=steps,
        step_idx=next((idx for idx, step in enumerate(steps) if not step.answered), 0),
        choices=tuple(Choice(answer, label, KEYS[answer]) for answer, label in labels.items()),
        can_undo=bool(answers),
    )


def _view_side(pair: Pair, side: Side, noun: str, book: SampleBook) -> ShownSide:
    number = _SIDES.index(side) + 1
    samples = book.samples(pair, side)
    return ShownSide(
        f"{noun} {number}",
        tuple(ShownSample(sample.turns, _addresses(pair, number, idx, sample)) for idx, sample in enumerate(samples)),
    )


def _addresses(pair: Pair, number: int, sample_idx: int, sample: Sample) -> tuple[str, ...]:
    """Of each image; a contact sheet shows only the first one of a sample."""
    n_images = min(1, len(sample.images)) if pair.kind == "sheet" else len(sample.images)
    return tuple(f"/image/{pair.token}/{number}/{sample_idx}/{image_idx}" for image_idx in range(n_images))

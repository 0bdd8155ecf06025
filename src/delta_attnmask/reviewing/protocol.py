"""What judges are asked, and a review as it was drawn: which rows stand on which side of which pair. No torch here.

The protocol says which side was selected, so it never leaves whoever drew the review: see `handout.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from delta_attnmask.errors import ArtifactError

Kind = Literal["compare", "repeat", "shuffled"]
Side = Literal["first", "second"]
Answer = Literal["first", "second", "equal", "unknown"]
Answers = Mapping[tuple[str, str], Answer]  # of one judge, by pair and question

ANSWERS: tuple[Answer, ...] = ("first", "second", "equal", "unknown")
SIDES: tuple[Side, Side] = ("first", "second")
PROTOCOL_FILE = "review.json"


@dataclass(frozen=True)
class ReviewQuestion:
    """One question about a pair.

    name: as it is stored. title: in a word or two. text: as it is asked. hint: what to look at.
    """

    name: str
    title: str
    text: str
    hint: str


QUESTIONS = (
    ReviewQuestion(
        "clarity",
        "Clear instruction",
        "Which instruction is clearer?",
        "Could you tell what is wanted, from the words and the image alone? Ignore the answer.",
    ),
    ReviewQuestion(
        "correctness",
        "Correct answer",
        "Which answer is more correct?",
        "Check it against the image. An answer that is cut off, or beside the point, is not correct.",
    ),
    ReviewQuestion(
        "image",
        "Image needed",
        "Which sample needs its image more?",
        "Would a person who can't see the image find the answer from the words alone? Then it isn't needed.",
    ),
    ReviewQuestion(
        "overall",
        "Better to learn from",
        "Which sample would you rather teach a model with?",
        "Your judgement of the whole: instruction, image and answer.",
    ),
)
# Of a sample against itself with its words shuffled, only these two have an answer that is plainly right.
SHUFFLED_QUESTIONS = ("clarity", "overall")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sides that a judge compares.

    token: random name under which pages and answers know the pair; it says nothing about it.
    kind: compare: selected against control; repeat: such a pair again, sides swapped; shuffled: a sample against
        itself with its words shuffled.
    source: of both samples. first, second: their input rows.
    target: the side that holds the selected sample, or the sample whose words are in order.
    repeats: token of the pair that this one repeats.
    """

    token: str
    kind: Kind
    source: str
    first: int
    second: int
    target: Side
    repeats: str = ""

    def row(self, side: Side) -> int:
        return self.first if side == "first" else self.second

    def is_judged(self, answers: Answers) -> bool:
        """Whether every question has an answer."""
        return all((self.token, question.name) in answers for question in QUESTIONS)


@dataclass(frozen=True, kw_only=True)
class Review:
    """What a review compares; with the run it determines the pairs.

    manifest_sha256: of the run whose rows are shown. selection_sha256: of the rows of the selection under review.
    selection: what the selection was, in words. against: random, left, or what the other selection was.
    against_sha256: of the other selection's rows; empty for random and left.
    seed: of the draw. n_pairs: pairs of a selected sample and a control.
    """

    manifest_sha256: str
    selection_sha256: str
    selection: str
    against: str
    against_sha256: str
    seed: int
    n_pairs: int


@dataclass(frozen=True)
class Protocol:
    """A drawn review. id: random; pages and answers carry it. pairs: in the order in which every judge sees them."""

    id: str
    review: Review
    pairs: tuple[Pair, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Protocol":
        """The protocol of a review's folder. Raises ArtifactError if there is none."""
        path = folder / PROTOCOL_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(values["id"], Review(**values["review"]), tuple(Pair(**pair) for pair in values["pairs"]))
        except OSError as error:
            raise ArtifactError(
                f"{folder} holds no review; `delta-attnmask review RUN --selection FILE --out DIR` makes one"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is no review of this version: {error!r}") from error


def other_side(side: Side) -> Side:
    return "second" if side == "first" else "first"

"""What a rater is asked, and what may be answered. docs/review.md explains why."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["compare", "repeat", "shuffled", "sheet"]
Side = Literal["first", "second"]
Answer = Literal["first", "second", "equal", "unknown"]

ANSWERS: tuple[Answer, ...] = ("first", "second", "equal", "unknown")
KEYS: dict[Answer, str] = {"first": "1", "second": "2", "equal": "0", "unknown": "?"}


@dataclass(frozen=True)
class Question:
    """One question about a pair.

    name: as it is stored. title: in a word or two. text: as it is asked. hint: what to look at.
    """

    name: str
    title: str
    text: str
    hint: str


PAIR_QUESTIONS = (
    Question(
        "clarity",
        "Clear instruction",
        "Which instruction is clearer?",
        "Could you tell what is wanted, from the words and the image alone? Ignore the answer.",
    ),
    Question(
        "correctness",
        "Correct answer",
        "Which answer is more correct?",
        "Check it against the image. An answer that is cut off, or beside the point, is not correct.",
    ),
    Question(
        "image",
        "Image needed",
        "Which sample needs its image more?",
        "Would a person who can't see the image find the answer from the words alone? Then it isn't needed.",
    ),
    Question(
        "overall",
        "Better to learn from",
        "Which sample would you rather teach a model with?",
        "Your judgement of the whole: instruction, image and answer.",
    ),
)
SHEET_QUESTIONS = (
    Question(
        "coverage",
        "Variety of tasks",
        "Which set covers more kinds of tasks?",
        "Count kinds of things that are asked for, and kinds of images; not how good each sample is.",
    ),
)
ALL_QUESTIONS = (*PAIR_QUESTIONS, *SHEET_QUESTIONS)

# Of a sample against itself with its words shuffled only these two have an answer that is plainly right.
SHUFFLED_QUESTIONS = ("clarity", "overall")


def questions_of(kind: Kind) -> tuple[Question, ...]:
    return SHEET_QUESTIONS if kind == "sheet" else PAIR_QUESTIONS


def other_side(side: Side) -> Side:
    return "second" if side == "first" else "first"

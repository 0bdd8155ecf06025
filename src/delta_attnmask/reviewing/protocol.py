"""What judges are asked, and a review as it was drawn: which rows are on which side of which pair. No torch here.

The protocol says which side was selected, so judges must not see it; they get only the page.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from delta_attnmask.errors import ArtifactError

Side = Literal["first", "second"]
Answer = Literal["first", "second", "equal", "unknown"]

ANSWERS: dict[Answer, str] = {"first": "Sample 1", "second": "Sample 2", "equal": "Equal", "unknown": "Can't tell"}
SIDES: tuple[Side, Side] = ("first", "second")
PROTOCOL_FILE = "review.json"


@dataclass(frozen=True)
class ReviewQuestion:
    """One question about a pair. name: as it is stored. text: as it is asked. hint: what to look at."""

    name: str
    text: str
    hint: str


QUESTIONS = (
    ReviewQuestion(
        "clarity",
        "Which instruction is clearer?",
        "Could you tell what is wanted, from the words and the image alone? Ignore the answer.",
    ),
    ReviewQuestion(
        "correctness",
        "Which answer is more correct?",
        "Check it against the image. An answer that is cut off, or beside the point, is not correct.",
    ),
    ReviewQuestion(
        "image",
        "Which sample needs its image more?",
        "Would a person who can't see the image find the answer from the words alone? Then it isn't needed.",
    ),
    ReviewQuestion(
        "overall",
        "Which sample would you rather teach a model with?",
        "Your judgement of the whole: instruction, image and answer.",
    ),
)
CHECK_QUESTIONS = ("clarity", "overall")  # in a check, only these have one right answer


@dataclass(frozen=True)
class Pair:
    """Two samples that a judge compares: a selected one and a control, or, as a check of the judge, a sample and itself
    with its text reversed.

    token: random name under which the page and the answers know the pair.
    first, second: input rows of the two sides; the same row in a check.
    target: the side with the selected sample; in a check, the side whose text is not reversed.
    """

    token: str
    first: int
    second: int
    target: Side

    @property
    def is_check(self) -> bool:
        return self.first == self.second


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A review as it was drawn. With the run, everything up to n_pairs determines the pairs.

    id: random; the page and the answers carry it. manifest_sha256: of the run whose rows are shown.
    selection: what the selection under review was, in words, with the beginning of a hash of its rows.
    against: random, left, or the same of another selection. seed: of the draw. n_pairs: asked for, without checks.
    pairs: in the order in which every judge sees them, checks included.
    """

    id: str
    manifest_sha256: str
    selection: str
    against: str
    seed: int
    n_pairs: int
    pairs: tuple[Pair, ...]

    @property
    def compared(self) -> list[Pair]:
        """The pairs that are no checks."""
        return [pair for pair in self.pairs if not pair.is_check]

    @classmethod
    def read(cls, folder: Path) -> "Protocol":
        """The protocol in a review's folder. Raises ArtifactError if there is none."""
        path = folder / PROTOCOL_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**values | {"pairs": tuple(Pair(**pair) for pair in values["pairs"])})
        except OSError as error:
            raise ArtifactError(
                f"{folder} holds no review; `delta-attnmask review RUN --selection FILE --out DIR` makes one"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is no review of this version: {error!r}") from error

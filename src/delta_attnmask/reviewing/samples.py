"""What a side of a pair shows: the rows' texts and images, without anything that shows where they come from."""

import random
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count
from typing import TYPE_CHECKING, Self

from delta_attnmask.errors import ArtifactError, RowError
from delta_attnmask.exporting.run_export import open_scored
from delta_attnmask.reading.rows import Place, Rows
from delta_attnmask.records import ImageRef, Record, Role
from delta_attnmask.reporting.page import embed_image
from delta_attnmask.reviewing.protocol import Pair, Side
from delta_attnmask.runs import RunFolder

if TYPE_CHECKING:
    from PIL.Image import Image

SPEAKERS: dict[Role, str] = {"system": "System", "user": "Instruction", "assistant": "Answer"}
_IMAGE_SIDE, _IMAGE_BYTES = 1024, 120_000  # px; before base64
_LOSSLESS_SIDE = 320  # px; a smaller image is enlarged on the screen, where losses would show


@dataclass(frozen=True)
class ShownTurn:
    """A turn as it is read. speaker: Instruction, Answer or System."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Sample:
    """A row as it is shown; `images` are as the data names them, and are never written anywhere."""

    turns: tuple[ShownTurn, ...]
    images: tuple[ImageRef, ...]


class SampleBook:
    """The samples of a review's pairs, and their images."""

    def __init__(self, dataset: Rows, records: dict[int, Record], seed: int) -> None:
        self._dataset, self._records, self._seed = dataset, records, seed

    @classmethod
    def open(
        cls,
        run: RunFolder,
        pairs: Iterable[Pair],
        *,
        seed: int,
        place: Place = Place(),
    ) -> Self:
        """Read the pairs' rows.

        Raises ArtifactError if the file isn't the one that was scored.
        """
        dataset = open_scored(run, place)
        rows = {row for pair in pairs for row in (pair.first, pair.second)}
        records = {record.row: record for row in sorted(rows) for record in dataset.records(row, row + 1)}
        if unusable := sorted(row for row in rows if row not in records or records[row].reason):
            raise ArtifactError(f"row {unusable[0]} of the review can't be read from the data that was scored")
        return cls(dataset, records, seed)

    def sample(self, pair: Pair, side: Side) -> Sample:
        """What stands on a side; its words are shuffled where the pair says so."""
        shown = show_record(self._records[pair.row(side)])
        if pair.kind == "shuffled" and side != pair.target:
            return shuffle_words(shown, f"{self._seed}/{pair.first}")
        return shown

    def embed(self, references: Sequence[ImageRef]) -> str:
        """Images side by side as one, of at most 1,024 px, as a `data:` URI; empty where one can't be loaded.

        It is made anew, so that nothing of the files but their pixels is left.
        """
        try:
            images = self._dataset.load_images(references)
        except RowError:  # moved since it was scored; the judge sees the gap and can't tell
            return ""
        joined = _join(images)
        if max(joined.size) > _LOSSLESS_SIDE:
            return embed_image(joined, max_side=_IMAGE_SIDE, max_bytes=_IMAGE_BYTES).uri
        file = BytesIO()
        joined.save(file, "webp", lossless=True)
        return f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"


def _join(images: Sequence["Image"]) -> "Image":
    from PIL import Image

    if not images:
        return Image.new("RGB", (64, 64), "white")
    joined = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width
    return joined


def show_record(record: Record) -> Sample:
    """A record's turns; where a turn has several images, or text before one, their places are marked."""
    numbers = count(1)
    marks: Callable[[], str] = (lambda: "") if len(record.images) == 1 else (lambda: f"[image {next(numbers)}] ")
    turns = tuple(
        ShownTurn(SPEAKERS[turn.role], "".join(marks() if part is None else part for part in turn.parts).strip())
        for turn in record.turns
    )
    return Sample(turns, record.images)


def shuffle_words(sample: Sample, seed: str) -> Sample:
    """The sample with the words of each turn in another order."""
    rng = random.Random(seed)
    return replace(sample, turns=tuple(replace(turn, text=_shuffle(turn.text, rng)) for turn in sample.turns))


def _shuffle(text: str, rng: random.Random) -> str:
    words = text.split()
    if len(set(words)) < 2:
        return text
    shuffled = list(words)
    while shuffled == words:
        rng.shuffle(shuffled)
    return " ".join(shuffled)

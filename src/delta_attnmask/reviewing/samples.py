"""What a side of a pair shows: the rows' texts and images, without anything that tells where they come from."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.errors import ArtifactError
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.records import Record, Role
from delta_attnmask.reviewing.pairs import Pair
from delta_attnmask.reviewing.protocol import Side

if TYPE_CHECKING:
    from PIL.Image import Image

SPEAKERS: dict[Role, str] = {"system": "System", "user": "Instruction", "assistant": "Answer"}
IMAGE_SIDE = 1024  # px; a screen shows no more of half a page
THUMBNAIL_SIDE = 320
_QUALITY = 92
_LOSSLESS_SIDE = 512  # px; enlarged on the screen, a JPEG of a smaller one shows its blocks
_BLANK_SIDE = 64


@dataclass(frozen=True)
class ShownTurn:
    """A turn as it is read. speaker: Instruction, Answer or System."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Sample:
    """A row as it is shown; `images` are as the data names them, and never leave the server."""

    turns: tuple[ShownTurn, ...]
    images: tuple[str, ...]


class SampleBook:
    """The samples of a review's pairs, and their images."""

    def __init__(self, dataset: Dataset, records: dict[int, Record], seed: int) -> None:
        self._dataset, self._records, self._seed = dataset, records, seed

    @classmethod
    def open(
        cls,
        run: RunFolder,
        pairs: Iterable[Pair],
        *,
        seed: int,
        data: Path | None = None,
        images: Path | None = None,
        limits: ImageLimits = ImageLimits(),
    ) -> Self:
        """Read the pairs' rows; data, images: where they are now, if they were moved.

        Raises ArtifactError if the file isn't the one that was scored.
        """
        manifest = run.manifest
        root = images or manifest.images or None
        dataset = Dataset(data or manifest.data, root, format=manifest.format, image_limits=limits)
        if dataset.fingerprint != manifest.input:
            raise ArtifactError(f"{data or manifest.data} isn't what was scored; name the right file with --data")
        records = _read_records(dataset, {row for pair in pairs for row in pair.rows})
        return cls(dataset, records, seed)

    def samples(self, pair: Pair, side: Side) -> tuple[Sample, ...]:
        """One sample, or those of a set; the words of one are shuffled where the pair says so."""
        shown = tuple(show_record(self._records[row]) for row in pair.side(side))
        if pair.kind == "shuffled" and side != pair.target:
            return tuple(shuffle_words(sample, f"{self._seed}/{pair.position}") for sample in shown)
        return shown

    def encode_image(self, references: Sequence[str], max_side: int) -> tuple[bytes, str]:
        """Images side by side as one of at most max_side px, with its media type; a white square where there is none.

        It is made anew, so that nothing of the files but their pixels is left. Raises RowError if one can't be loaded.
        """
        images = self._dataset.load_images(references)
        joined = images[0] if len(images) == 1 else _join(images)
        joined.thumbnail((max_side, max_side))
        file = BytesIO()
        if max(joined.size) <= _LOSSLESS_SIDE:
            joined.save(file, "png")
            return file.getvalue(), "image/png"
        joined.save(file, "jpeg", quality=_QUALITY, subsampling=0)
        return file.getvalue(), "image/jpeg"


def _join(images: Sequence["Image"]) -> "Image":
    from PIL import Image

    height = max((image.height for image in images), default=_BLANK_SIDE)
    joined = Image.new("RGB", (sum(image.width for image in images) or height, height), "white")
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


def _read_records(dataset: Dataset, rows: Iterable[int]) -> dict[int, Record]:
    """The records of these rows; ArtifactError where one is no usable row any more."""
    found = {record.row: record for row in sorted(rows) for record in dataset.records(row, row + 1)}
    if unusable := sorted(row for row in rows if row not in found or found[row].reason):
        raise ArtifactError(f"row {unusable[0]} of the review can't be read from the data that was scored")
    return found

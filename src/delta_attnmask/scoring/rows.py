"""Rows become encoded samples: their images are read, and they and what variant scores make of them are encoded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import RowError
from delta_attnmask.reading.images import iter_images
from delta_attnmask.records import Record
from delta_attnmask.scoring.rivals import VariantRival

ImageLoader = Callable[[str], Any]
Images = list[Any]  # PIL
Loaded = tuple[Record, Images | RowError]  # or why they can't be had
Encoded = dict[str, EncodedSample] | RowError  # by the score that reads it ("" the row itself)

_PIXELS_TOGETHER = 1 << 20  # of decoded images that wait to be encoded together


class RowEncoder:
    """Encodes rows for one model; several threads may at a time.

    load_image: gives the PIL image for a reference as written in the data; raises RowError.
    variants: the scores that read a changed row, by name.
    """

    def __init__(self, encoder: Encoder, load_image: ImageLoader, variants: Mapping[str, VariantRival]):
        self._encoder, self._load_image, self._variants = encoder, load_image, variants

    def encode(self, records: Sequence[Record]) -> list[Encoded]:
        """Each row under the name "" and its variants under theirs, or why the row can't be encoded.

        Rows with small images are encoded together, which is faster; no large one waits while the next is read.
        """
        encoded: list[Encoded] = []
        waiting: list[Loaded] = []
        n_pixels = 0
        for record in records:
            waiting.append(self._load(record))
            n_pixels += _n_pixels(waiting[-1])
            if n_pixels >= _PIXELS_TOGETHER:
                encoded += self._encode_together(waiting)
                waiting, n_pixels = [], 0
        return encoded + self._encode_together(waiting)

    def _load(self, record: Record) -> Loaded:
        if record.error:
            return record, record.error
        try:
            return record, list(iter_images(record.images, self._load_image))
        except RowError as error:
            return record, error

    def _encode_together(self, rows: Sequence[Loaded]) -> list[Encoded]:
        encoded: list[Encoded] = [images if isinstance(images, RowError) else {} for _, images in rows]
        readings = [(index, *reading) for index, row in enumerate(rows) for reading in self._readings(*row)]
        outcomes = self._encoder.encode_all([(record, images) for _, _, record, images in readings])
        for (index, name, *_), outcome in zip(readings, outcomes, strict=True):
            samples = encoded[index]
            if isinstance(samples, RowError):
                continue
            if isinstance(outcome, EncodedSample):
                samples[name] = outcome
            elif not name:  # a variant that can't be encoded leaves its column empty; the row stands
                encoded[index] = outcome
        return encoded

    def _readings(self, record: Record, images: Images | RowError) -> Iterator[tuple[str, Record, Images]]:
        """What is encoded of a row: itself, and what the variants make of it."""
        if isinstance(images, RowError):
            return
        yield "", record, images
        for name, rival in self._variants.items():
            with suppress(RowError):
                if (changed := rival.change(record)) is not None:
                    yield name, changed, images if changed.images else []


def n_bytes(outcome: Encoded) -> int:
    """Of the tensors that are held of a row."""
    return 0 if isinstance(outcome, RowError) else sum(sample.n_bytes for sample in outcome.values())


def _n_pixels(row: Loaded) -> int:
    return 0 if isinstance(row[1], RowError) else sum(image.width * image.height for image in row[1])

"""Rows become encoded samples: their images are read, and they and what variant scores make of them are encoded."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.errors import RowError
from delta_attnmask.reading.images import iter_images
from delta_attnmask.records import ImageRef, Record

Images = list[Any]  # PIL
Variant = Callable[[Record], Record | None]  # a changed row; None where the change doesn't apply
EncodedRow = dict[str, EncodedSample]  # "" is the row itself, the others are its variants by name

PIXELS_TOGETHER = 1 << 20  # of decoded images that wait to be encoded together
CHUNK_BYTES = 64 << 20  # of encoded rows that are given back at a time


class RowEncoder:
    """Encodes rows for one model; called with some records, it gives an outcome for each of the first ones.

    load_image: gives the PIL image of a reference; raises RowError.
    variants: changed rows that are encoded too, by name.
    max_pixels: of images that are encoded together. max_bytes: where the encoded rows are larger, the rest is left.
    """

    def __init__(
        self,
        encoder: Encoder,
        load_image: Callable[[ImageRef], Any],
        variants: Mapping[str, Variant] | None = None,
        *,
        max_pixels: int = PIXELS_TOGETHER,
        max_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._encoder, self._load_image, self._variants = encoder, load_image, variants or {}
        self._max_pixels, self._max_bytes = max_pixels, max_bytes

    def __call__(self, records: Sequence[Record]) -> list[EncodedRow | RowError]:
        """Each row with its variants, or why it can't be encoded; fewer than were given where they take much memory.

        Rows with small images are encoded together, which is faster; no large one waits while the next is read.
        """
        encoded: list[EncodedRow | RowError] = []
        waiting: list[tuple[Record, Images | RowError]] = []
        n_pixels = n_held = 0
        for record in records:
            try:
                waiting.append((record, self._load(record)))
            except Exception:  # it is about this row alone, so those before it are done first
                if not encoded and not waiting:
                    raise
                break
            n_pixels += _n_pixels(waiting[-1][1])
            if n_pixels >= self._max_pixels:
                encoded += self._encode_together(waiting)
                n_held += sum(map(n_bytes, encoded[-len(waiting) :]))
                waiting, n_pixels = [], 0
                if n_held >= self._max_bytes:
                    return encoded
        return encoded + self._encode_together(waiting)

    def _load(self, record: Record) -> Images | RowError:
        if record.error is not None:
            return record.error
        try:
            return list(iter_images(record.images, self._load_image))
        except RowError as error:
            return error

    def _encode_together(self, rows: Sequence[tuple[Record, Images | RowError]]) -> list[EncodedRow | RowError]:
        encoded: list[EncodedRow | RowError] = [images if isinstance(images, RowError) else {} for _, images in rows]
        readings: list[tuple[int, str, Record, Images]] = []  # the row itself, and what the variants make of it
        for index, (record, images) in enumerate(rows):
            if isinstance(images, RowError):
                continue
            readings.append((index, "", record, images))
            for name, change in self._variants.items():
                with suppress(RowError):
                    if (changed := change(record)) is not None:
                        readings.append((index, name, changed, images if changed.images else []))
        outcomes = self._encoder.encode_all([(record, images) for _, _, record, images in readings])
        for (index, name, *_), outcome in zip(readings, outcomes, strict=True):
            samples = encoded[index]
            if isinstance(samples, RowError):
                continue
            if isinstance(outcome, EncodedSample):
                samples[name] = outcome
            elif not name:  # a variant that can't be encoded leaves its column empty; the row stays
                encoded[index] = outcome
        return encoded


def n_bytes(outcome: EncodedRow | RowError) -> int:
    """Of the tensors that are held of a row."""
    return 0 if isinstance(outcome, RowError) else sum(sample.n_bytes for sample in outcome.values())


def _n_pixels(images: Images | RowError) -> int:
    return 0 if isinstance(images, RowError) else sum(image.width * image.height for image in images)

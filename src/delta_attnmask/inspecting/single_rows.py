"""Rows one at a time, each as a batch of its own on the model's device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from delta_attnmask.batches import EncodedBatch
from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.errors import DeltaAttnMaskError, ReasonCode, RowError
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.modeling.running import with_positions
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class SingleRow:
    """A row's pictures, and the batch of one that it makes."""

    pictures: tuple["Image", ...]
    batch: EncodedBatch


class SingleRows:
    """The rows of a data set as one model is given them."""

    def __init__(self, loaded: LoadedModel, dataset: Rows):
        self.loaded = loaded
        self.dataset = dataset
        self._encoder = make_encoder(loaded)
        self.special_ids = self._encoder.special_ids

    def read(self, row: int) -> Record:
        return next(self.dataset.records(row, row + 1))

    def encode(self, record: Record) -> SingleRow:
        """Raises RowError for a row that can't be used."""
        if record.error:
            raise record.error
        pictures = tuple(self.dataset.load_images(record.images))
        batch = collate([self._encoder.encode(record, pictures)], self._encoder.pad_token_id)
        batch = replace(batch, inputs=with_positions(self.loaded.model, batch.inputs))
        return SingleRow(pictures, batch.to(self.loaded.device, self.loaded.dtype))


@contextmanager
def model_errors_as_row_errors() -> Iterator[None]:
    """Turn whatever the model's code raises on a row into RowError; errors of settings, model and device stay."""
    try:
        yield
    except (DeltaAttnMaskError, torch.AcceleratorError):
        raise
    except Exception as error:  # a model's code may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RowError(ReasonCode.MODEL_REFUSED, f"the model refuses the row: {reason}") from error

"""What a model's code raises on a row, as the row's reason."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from delta_attnmask.errors import DeltaAttnMaskError, ReasonCode, RowError


@contextmanager
def refusals() -> Iterator[None]:
    """Turn whatever the model raises on a row into RowError; faults of the settings, model and device stay."""
    try:
        yield
    except (DeltaAttnMaskError, torch.AcceleratorError):
        raise
    except Exception as error:  # a model's code may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RowError(ReasonCode.MODEL_REFUSED, f"the model refuses the row: {reason}") from error

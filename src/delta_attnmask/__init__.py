"""Select visual-instruction data by how much the loss rises when the most attended states are masked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delta_attnmask.calibration import Calibration
    from delta_attnmask.encoding.encoder import Encoder
    from delta_attnmask.errors import (
        ArtifactError,
        DataError,
        DeltaAttnMaskError,
        DeviceError,
        ReasonCode,
        RowError,
        SettingsError,
        TooLittleDataError,
        UnitsFailedError,
        UnsupportedModelError,
    )
    from delta_attnmask.reading.rows import load_rows
    from delta_attnmask.results import Scores
    from delta_attnmask.scorer import DeltaAttnMask
    from delta_attnmask.scoring.delta import BatchScore, score_batch
    from delta_attnmask.selecting.selector import select_rows
    from delta_attnmask.selection import Selection
    from delta_attnmask.settings import MaskSettings
    from delta_attnmask.training.masked_states import MaskedStateAugmentation, masked_states
    from delta_attnmask.training.plan import AugmentationSettings

__version__ = "0.1.0"

_HOMES = {
    "ArtifactError": "errors",
    "AugmentationSettings": "training.plan",
    "BatchScore": "scoring.delta",
    "Calibration": "calibration",
    "DataError": "errors",
    "DeltaAttnMask": "scorer",
    "DeltaAttnMaskError": "errors",
    "DeviceError": "errors",
    "Encoder": "encoding.encoder",
    "MaskSettings": "settings",
    "MaskedStateAugmentation": "training.masked_states",
    "ReasonCode": "errors",
    "RowError": "errors",
    "Scores": "results",
    "Selection": "selection",
    "SettingsError": "errors",
    "TooLittleDataError": "errors",
    "UnitsFailedError": "errors",
    "UnsupportedModelError": "errors",
    "load_rows": "reading.rows",
    "masked_states": "training.masked_states",
    "score_batch": "scoring.delta",
    "select_rows": "selecting.selector",
}

__all__ = [
    "ArtifactError",
    "AugmentationSettings",
    "BatchScore",
    "Calibration",
    "DataError",
    "DeltaAttnMask",
    "DeltaAttnMaskError",
    "DeviceError",
    "Encoder",
    "MaskSettings",
    "MaskedStateAugmentation",
    "ReasonCode",
    "RowError",
    "Scores",
    "Selection",
    "SettingsError",
    "TooLittleDataError",
    "UnitsFailedError",
    "UnsupportedModelError",
    "load_rows",
    "masked_states",
    "score_batch",
    "select_rows",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import delta_attnmask` loads neither torch nor transformers."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

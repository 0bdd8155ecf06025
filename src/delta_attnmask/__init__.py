"""Select visual-instruction data by how much the loss rises when the most attended states are masked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delta_attnmask.errors import (
        ArtifactError,
        DataError,
        DeltaAttnMaskError,
        SettingsError,
        UnsupportedModelError,
    )
    from delta_attnmask.scoring.delta import BatchScore, score_batch
    from delta_attnmask.selecting.selector import select_rows
    from delta_attnmask.selection import Selection
    from delta_attnmask.settings import MaskSettings
    from delta_attnmask.training.augmentation import MaskedStateAugmentation
    from delta_attnmask.training.masked_states import masked_states
    from delta_attnmask.training.plan import AugmentationSettings

__version__ = "0.1.0"

_HOMES = {
    "ArtifactError": "delta_attnmask.errors",
    "AugmentationSettings": "delta_attnmask.training.plan",
    "BatchScore": "delta_attnmask.scoring.delta",
    "DataError": "delta_attnmask.errors",
    "DeltaAttnMaskError": "delta_attnmask.errors",
    "MaskSettings": "delta_attnmask.settings",
    "MaskedStateAugmentation": "delta_attnmask.training.augmentation",
    "Selection": "delta_attnmask.selection",
    "SettingsError": "delta_attnmask.errors",
    "UnsupportedModelError": "delta_attnmask.errors",
    "masked_states": "delta_attnmask.training.masked_states",
    "score_batch": "delta_attnmask.scoring.delta",
    "select_rows": "delta_attnmask.selecting.selector",
}

__all__ = [
    "ArtifactError",
    "AugmentationSettings",
    "BatchScore",
    "DataError",
    "DeltaAttnMaskError",
    "MaskSettings",
    "MaskedStateAugmentation",
    "Selection",
    "SettingsError",
    "UnsupportedModelError",
    "masked_states",
    "score_batch",
    "select_rows",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import delta_attnmask` loads neither torch nor transformers."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

"""Select visual-instruction data by how much the loss rises when the most attended states are masked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from delta_attnmask.calibration import Calibration as Calibration
    from delta_attnmask.encoding.encoder import Encoder as Encoder
    from delta_attnmask.errors import ArtifactError as ArtifactError
    from delta_attnmask.errors import DataError as DataError
    from delta_attnmask.errors import DeltaAttnMaskError as DeltaAttnMaskError
    from delta_attnmask.errors import DeviceError as DeviceError
    from delta_attnmask.errors import ReasonCode as ReasonCode
    from delta_attnmask.errors import RowError as RowError
    from delta_attnmask.errors import SettingsError as SettingsError
    from delta_attnmask.errors import TooLittleDataError as TooLittleDataError
    from delta_attnmask.errors import UnitsFailedError as UnitsFailedError
    from delta_attnmask.errors import UnsupportedModelError as UnsupportedModelError
    from delta_attnmask.exporting.splitting import Split as Split
    from delta_attnmask.exporting.splitting import split_rows as split_rows
    from delta_attnmask.reading.rows import load_rows as load_rows
    from delta_attnmask.results import Scores as Scores
    from delta_attnmask.scorer import DeltaAttnMask as DeltaAttnMask
    from delta_attnmask.scoring.delta import BatchScore as BatchScore
    from delta_attnmask.scoring.delta import score_batch as score_batch
    from delta_attnmask.selecting.selector import select_rows as select_rows
    from delta_attnmask.selection import Selection as Selection
    from delta_attnmask.settings import MaskSettings as MaskSettings
    from delta_attnmask.training.masked_states import MaskedStateAugmentation as MaskedStateAugmentation
    from delta_attnmask.training.masked_states import masked_states as masked_states
    from delta_attnmask.training.plan import AugmentationSettings as AugmentationSettings

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
    "Split": "exporting.splitting",
    "TooLittleDataError": "errors",
    "UnitsFailedError": "errors",
    "UnsupportedModelError": "errors",
    "load_rows": "reading.rows",
    "masked_states": "training.masked_states",
    "score_batch": "scoring.delta",
    "select_rows": "selecting.selector",
    "split_rows": "exporting.splitting",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that `import delta_attnmask` loads neither torch nor transformers."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*_HOMES, "__version__"]

"""Two adapters on one model: each row is scored by the one that didn't learn from its half of the rows."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from delta_attnmask.calibration import adapter_sha256
from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.modeling.load import quiet_peft

N_HALVES = 2


def half_of(key: str) -> int:
    """The half of a row, 0 or 1, by the hash of its own bytes, so that equal rows are in one half."""
    return int(key[8:16], 16) % N_HALVES


class Halves:
    """Attaches the adapters of both halves to a model, until `detach`.

    folders: the adapter that learned from rows of half 0, and the one of half 1.
    Raises ArtifactError where one is missing or doesn't fit the model, SettingsError without PEFT.
    """

    def __init__(self, model: nn.Module, folders: Sequence[str]) -> None:
        try:
            from peft import PeftModel
        except ImportError as error:
            raise SettingsError("--rounds needs PEFT: pip install 'delta-attnmask[train]'") from error
        self._requires_grad = {name: weight.requires_grad for name, weight in model.named_parameters()}
        self._model = model
        self._adapted: Any = None
        for half, folder in enumerate(folders):
            adapter_sha256(folder)  # PEFT would look for a pickle where the safetensors are missing
            try:
                with quiet_peft():
                    if self._adapted is None:
                        self._adapted = PeftModel.from_pretrained(model, folder, adapter_name=_name(half))
                    else:
                        self._adapted.load_adapter(folder, _name(half))
            except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
                self.detach()
                raise ArtifactError(f"{folder}: the adapter doesn't fit the model: {error}") from error
        model.eval()

    def use_for(self, half: int) -> None:
        """Score rows of this half from now on: with the adapter that learned from the other."""
        self._adapted.set_adapter(_name(1 - half))

    def detach(self) -> None:
        """Leave the model as it was."""
        if self._adapted is not None:
            self._adapted.unload()
            self._adapted = None
        for name, weight in self._model.named_parameters():
            weight.requires_grad_(self._requires_grad[name])


def _name(half: int) -> str:
    return f"half_{half}"

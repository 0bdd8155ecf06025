"""A calibration: the score that suits a model and a data set, and what was found on the way. No torch here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

from delta_attnmask.artifacts import write_text_atomically
from delta_attnmask.calibrating.choice import Candidate
from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.settings import MaskSettings, Preset

FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """Which score was chosen, and why. `report` is what calibration.json holds, plain JSON values."""

    report: Mapping[str, Any]

    @property
    def settings(self) -> MaskSettings:
        return MaskSettings.from_dict(self.report["settings"])

    @property
    def form(self) -> str:
        """The column that orders the rows, such as `relative_delta`."""
        return str(self.report["form"])

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.form, self.settings)

    @property
    def preset(self) -> Preset:
        """What a run takes from it."""
        return Preset(self.settings, self.form, self.sha256)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the report, the same before it is written and when it is read back."""
        return sha256(json.dumps(dict(self.report), sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def save(self, folder: str | Path) -> Path:
        """Write FOLDER/calibration.json, whole or not at all; the folder is made if it is missing.

        Raises ArtifactError where the system refuses.
        """
        path = Path(folder) / FILE
        write_text_atomically(path, json.dumps(dict(self.report), indent=1, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what `save` wrote into a folder, or the file in it; ArtifactError if there is none."""
        path = Path(folder)
        path = path / FILE if path.is_dir() else path
        try:
            found = cls(json.loads(path.read_text(encoding="utf-8")))
            _ = found.preset
            return found
        except FileNotFoundError as error:
            raise ArtifactError(f"{path} is missing; `delta-attnmask calibrate --out {folder}` makes one") from error
        except (OSError, ValueError, KeyError, TypeError, SettingsError) as error:
            raise ArtifactError(f"{path} is no calibration: {error}") from error

    def differences(self, made_with: Mapping[str, Any]) -> list[str]:
        """What was another thing when it was made: the model, its precision, the data.

        made_with: as `calibrator.made_with` says of a model, of data, or of both.
        """
        there, found = self.report, []
        if "model" in made_with:
            found.append(("model", *(_about_model(one) for one in (there, made_with))))
        if "data" in made_with:
            found.append(("data", *(_about_data(one) for one in (there, made_with))))
        return [f"{what}: {_name(then)} there, {_name(now)} now" for what, then, now in found if then[2] != now[2]]


def refuse_another_calibration(folder: str | Path, made_with: Mapping[str, Any]) -> None:
    """Raise ArtifactError where a folder holds the calibration of another model or other data, and say what differs.

    Somebody's scores may go by it, so that it isn't replaced.
    """
    path = Path(folder) / FILE
    if path.exists() and (changed := Calibration.load(path).differences(made_with)):
        raise ArtifactError(
            f"{path} was calibrated on something else and isn't replaced; choose another folder, or remove that file. "
            f"What differs: {'; '.join(changed)}"
        )


def _about_model(report: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return report.get("model"), report.get("dtype"), report.get("model_fingerprint")


def _about_data(report: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return report.get("data"), "SHA-256", report.get("input", {}).get("sha256")


def _name(thing: tuple[Any, Any, Any]) -> str:
    """A model or a data set in short, told from another of the same name."""
    name, kind, fingerprint = thing
    return f"{name} ({kind} {str(fingerprint)[:8]})"

"""What a calibration found, read for the report: candidates by kinds of planted defects. No torch here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delta_attnmask.errors import ArtifactError
from delta_attnmask.reporting.words import name_form, name_settings

_FILE = "calibration.json"


@dataclass(frozen=True)
class Tried:
    """One candidate: a mask setting with a form, or a score without a mask. aurocs: by kind; None where unknown.

    value: what the rule compares, (2 × worst + mean) / 3.
    """

    form: str
    settings: Mapping[str, Any] | None
    is_control: bool
    value: float | None
    aurocs: Mapping[str, float | None]

    def __str__(self) -> str:
        return (
            name_form(self.form) if self.settings is None else f"{name_form(self.form)}: {name_settings(self.settings)}"
        )


@dataclass(frozen=True)
class InSource:
    """AUROC in one source: of all seen kinds together, with its 95 % interval, and of each kind. None where unknown."""

    together: float | None
    low: float | None
    high: float | None
    aurocs: Mapping[str, float | None]


@dataclass(frozen=True)
class Findings:
    """kinds: that were planted. visible: those that some score tells. intervals: 95 %, of the chosen one's AUROC.

    low_loss: the AUROCs' value of the chosen score, of low loss, and their rank correlation.
    sources: source → how well the chosen score does in it.
    """

    chosen: Tried
    kinds: tuple[str, ...]
    visible: tuple[str, ...]
    intervals: Mapping[str, tuple[float | None, float | None]]
    candidates: tuple[Tried, ...]
    sources: Mapping[str, "InSource"]
    low_loss: Mapping[str, Any]
    n_originals: int
    n_planted: int
    warnings: tuple[str, ...]


def read_findings(path: Path, *, is_required: bool = False) -> Findings | None:
    """The findings of CAL/calibration.json, CAL being a folder or the file; None where there is none.

    Raises ArtifactError for what is no calibration, and where there must be one.
    """
    path = path if path.is_file() else path / _FILE
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        if is_required:
            raise ArtifactError(f"{path} is missing; `delta-attnmask calibrate --out` makes one") from error
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is no calibration: {error!r}; expected what `delta-attnmask calibrate --out` writes"
        ) from error


def _parse(report: Mapping[str, Any]) -> Findings:
    kinds = tuple(report["kinds"])
    return Findings(
        chosen=_tried(report["chosen"], kinds),
        kinds=kinds,
        visible=tuple(kind for kind in kinds if kind in report["visible_kinds"]),
        intervals={
            kind: (_number(one["chosen"]["low"]), _number(one["chosen"]["high"]))
            for kind, one in report["kinds"].items()
        },
        candidates=tuple(_tried(one, kinds) for one in report["candidates"]),
        sources={str(source): _in_source(found, kinds) for source, found in report["sources"].items()},
        low_loss=dict(report["low_loss"]),
        n_originals=int(report["n_originals"]),
        n_planted=int(report["n_planted"]),
        warnings=tuple(map(str, report["warnings"])),
    )


def _tried(one: Mapping[str, Any], kinds: tuple[str, ...]) -> Tried:
    return Tried(
        form=str(one["form"]),
        settings=None if one["settings"] is None else dict(one["settings"]),
        is_control=bool(one["is_control"]),
        value=_number(one["value"]),
        aurocs={kind: _number(one["auroc"].get(kind)) for kind in kinds},
    )


def _in_source(found: Mapping[str, Any], kinds: tuple[str, ...]) -> InSource:
    """Of a source's figures; the first schema had a number for each kind and no more."""
    if "together" not in found:
        return InSource(None, None, None, {kind: _number(found.get(kind)) for kind in kinds})
    together, low, high = (_number(found["together"][name]) for name in ("auroc", "low", "high"))
    return InSource(together, low, high, {kind: _number(found["kinds"].get(kind, {}).get("auroc")) for kind in kinds})


def _number(value: object) -> float | None:
    """Raises TypeError or ValueError for what is neither a number nor null."""
    return None if value is None else float(value)  # type: ignore[arg-type]

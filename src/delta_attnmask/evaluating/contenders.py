"""Evaluations to be compared: grouped by name, checked to be of one test set, and what they cost. No torch here."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.evaluating.predictions import EvaluationFolder
from delta_attnmask.runs import RunFolder

# A limit taken from the data's longest answer may differ, since tokenizers do; a given one cuts answers off.
_MUST_AGREE = ("turns", "max_new_tokens_given")


@dataclass(frozen=True)
class Contender:
    """One method: its evaluations (several seeds of training have one name), and the scoring run that it needed."""

    name: str
    folders: tuple[EvaluationFolder, ...]
    scoring: RunFolder | None = None

    @property
    def seeds(self) -> tuple[int, ...] | None:
        """The training seed of each evaluation's model; None where one isn't known or two are the same."""
        found = [training_note(folder).get("seed") for folder in self.folders]
        seeds = tuple(seed for seed in found if isinstance(seed, int))
        return seeds if len(set(seeds)) == len(found) else None


def training_note(folder: EvaluationFolder) -> dict[str, Any]:
    """What training wrote beside the model (`train.json`); empty where there is none, as for a model from the hub."""
    return _read_object(Path(folder.manifest.model) / "train.json")


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} can't be read: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: expected a JSON object")
    return found


def gather_contenders(runs: Iterable[tuple[str, Path]], scoring: Mapping[str, Path] | None = None) -> list[Contender]:
    """Group folders by name, in order of appearance; scoring: by name, the run whose scores its data came from.

    Raises ArtifactError where a folder is no complete evaluation, or where two are of different test sets;
    SettingsError for a scoring run of a name that isn't there.
    """
    folders: dict[str, list[EvaluationFolder]] = {}
    for name, path in runs:
        folders.setdefault(name, []).append(EvaluationFolder.open(path))
    if unknown := sorted(set(scoring or {}) - set(folders)):
        raise SettingsError(f"scoring of {unknown[0]!r}: there is no such name; there are {', '.join(folders)}")
    _require_same_test([folder for group in folders.values() for folder in group])
    scored = {name: RunFolder.open(path) for name, path in (scoring or {}).items()}
    return [Contender(name, tuple(group), scored.get(name)) for name, group in folders.items()]


def _require_same_test(folders: list[EvaluationFolder]) -> None:
    if len(folders) < 2:
        raise SettingsError("got one evaluation; comparing needs at least two")
    first, *others = folders
    for other in others:
        mine, theirs = _asked(first), _asked(other)
        differing = [f"{name}: {mine[name]} and {theirs[name]}" for name in mine if mine[name] != theirs[name]]
        if differing:
            raise ArtifactError(
                f"{first.path} and {other.path} answer different questions, so they can't be compared "
                f"({'; '.join(differing)}); evaluate both on the same file with the same options"
            )


def _asked(folder: EvaluationFolder) -> dict[str, Any]:
    manifest = folder.manifest
    test = {"test file (SHA-256)": manifest.input.sha256[:16], "rows": manifest.n_rows}
    return test | {name: manifest.settings.get(name) for name in _MUST_AGREE}


def seconds_spent(contender: Contender) -> dict[str, float | None]:
    """Wall-clock seconds: of training (mean over seeds), of scoring with its calibration, and of both.

    None where nobody knows: a model without `train.json`, or a scoring run whose pace wasn't kept.
    """
    notes = [training_note(folder).get("seconds") for folder in contender.folders]
    known = [float(seconds) for seconds in notes if isinstance(seconds, int | float)]
    training = sum(known) / len(known) if len(known) == len(notes) else None
    scoring = 0.0 if contender.scoring is None else _scoring_seconds(contender.scoring)
    total = None if training is None or scoring is None else training + scoring
    return {"training_s": training, "scoring_s": scoring, "total_s": total}


def _scoring_seconds(run: RunFolder) -> float | None:
    pace = run.pace
    if pace.n_rows == 0:
        return None
    calibration = _read_object(run.path / "calibration.json").get("seconds", 0)
    return float(pace.seconds * run.manifest.n_rows / pace.n_rows + calibration)

"""Calibrate a loaded model on a data set, and keep the result in a folder."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from delta_attnmask.calibrating.calibrate import Calibration, calibrate
from delta_attnmask.calibrating.choice import Candidate
from delta_attnmask.errors import ArtifactError
from delta_attnmask.manifest import collect_versions
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel, model_fingerprint
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore
from delta_attnmask.scoring.pipeline import Unit
from delta_attnmask.scoring.rivals import load_rivals, rival_names
from delta_attnmask.scoring.trial import spaced_records
from delta_attnmask.scoring.units import ScoringPlan, UnitScorer, fit_grid
from delta_attnmask.settings import CALIBRATION_GRID, AttentionBackend, MaskSettings
from delta_attnmask.storage import write_text_atomically

_DONOR_ROWS = 20_000  # rows read to sample and to borrow images and answers from; more would only cost memory
_WINDOWS = 50  # places of the data that they come from, so that sources behind one another are all seen
_FILE = "calibration.json"


def calibrate_dataset(
    loaded: LoadedModel,
    dataset: Rows,
    *,
    n_rows: int = 240,
    rivals: Sequence[str] | None = None,
    batch_tokens: int = 8192,
    attention: AttentionBackend = "auto",
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda n_done, n_rows: None,
) -> Calibration:
    """Find the setting that suits this model and this data. Raises DataError where the data is too small for it.

    n_rows: originals. rivals: names of scores to compare with; None for all. batch_tokens, attention: as in a scoring
    plan.
    """
    anatomy = examine(loaded.model)
    anatomy.resolve_block(CALIBRATION_GRID[0].block)  # a model without it has none of the grid
    grid = fit_grid(CALIBRATION_GRID, anatomy)
    names = rival_names() if rivals is None else rivals
    plan = ScoringPlan(grid[0], grid, load_rivals(names), batch_tokens, attention=attention)
    scorer = UnitScorer(loaded, dataset.load_image, plan)

    def score(parts: Iterator[list[Record]]) -> Iterator[tuple[list[SampleScore], dict[int, list[float]]]]:
        units = [Unit(index, len(part), part) for index, part in enumerate(parts)]
        n_done, n_all = 0, sum(unit.n_rows for unit in units)
        for unit in scorer.score(units):
            n_done += len(unit.scores)
            on_progress(n_done, n_all)
            yield unit.scores, unit.sweep

    result = calibrate(read_donors(dataset), score, grid, n_rows=n_rows, seed=seed)
    about = {
        "model": loaded.name,
        "model_fingerprint": model_fingerprint(loaded.model),
        "dtype": _name_dtype(loaded),
        "data": dataset.name,
        "input": {"sha256": dataset.fingerprint.sha256, "n_bytes": dataset.fingerprint.n_bytes},
        "versions": collect_versions(),
    }
    return replace(result, report=result.report | about)


def read_donors(dataset: Rows) -> list[Record]:
    """The rows that the sample and its defects are made of: all, or windows evenly spaced over large data."""
    return spaced_records(dataset, _DONOR_ROWS, _WINDOWS)


def write_calibration(calibration: Calibration, folder: str | Path) -> Path:
    """Keep the report as FOLDER/calibration.json."""
    path = Path(folder) / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(calibration.report, indent=1, ensure_ascii=False) + "\n")
    return path


def read_calibration(folder: str | Path) -> Calibration:
    """Read a folder that `write_calibration` made (or the file in it); ArtifactError if it is none."""
    path = Path(folder)
    path = path / _FILE if path.is_dir() else path
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        settings = MaskSettings.from_dict(report["settings"])
        return Calibration(Candidate(report["form"], settings), report)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; `delta-attnmask calibrate --out {folder}` makes one") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is no calibration: {error}") from error


def refuse_another_calibration(folder: str | Path, loaded: LoadedModel | None, dataset: Rows) -> None:
    """Raise ArtifactError where a folder holds the calibration of another model or other data, and say what differs.

    Somebody's scores may go by it, so that it isn't replaced. loaded: None isn't compared.
    """
    path = Path(folder) / _FILE
    if path.exists() and (changed := differences(read_calibration(path), loaded, dataset)):
        raise ArtifactError(
            f"{path} was calibrated on something else and isn't replaced; choose another folder, or remove that file. "
            f"What differs: {'; '.join(changed)}"
        )


def differences(calibration: Calibration, loaded: LoadedModel | None, dataset: Rows | None) -> list[str]:
    """What was another thing when it was made: the model, its precision, the data. None isn't compared."""
    report, found = calibration.report, []
    if loaded is not None:
        there = (report.get("model"), report.get("dtype"), report.get("model_fingerprint"))
        found.append(("model", there, (loaded.name, _name_dtype(loaded), model_fingerprint(loaded.model))))
    if dataset is not None:
        there = (report.get("data"), "SHA-256", report.get("input", {}).get("sha256"))
        found.append(("data", there, (dataset.name, "SHA-256", dataset.fingerprint.sha256)))
    return [f"{what}: {_name(there)} there, {_name(now)} now" for what, there, now in found if there[2] != now[2]]


def _name(thing: tuple[Any, Any, Any]) -> str:
    """A model or a data set in short, told from another of the same name."""
    name, kind, fingerprint = thing
    return f"{name} ({kind} {str(fingerprint)[:8]})"


def _name_dtype(loaded: LoadedModel) -> str:
    return str(loaded.dtype).removeprefix("torch.")

"""Cross-fitted rounds: copies of the model learn from the rows that they trust, and score rows that they didn't see.

    calibrate → score a sample → for each half of it: train an adapter on the trusted rows → calibrate the adapted model

A row is in one of two halves, by the hash of its bytes. The adapter that learned from one half scores the other, so no
row is scored by a model that saw it. Whether a round is taken is decided by the planted copies, never by known defects.

FOLDER/rounds/0/calibration.json     of the model as it is
FOLDER/rounds/0/scores/              a run: the sample, scored as that calibration says
FOLDER/rounds/1/half-0/, half-1/     two trainings: what the adapters learned from the rows that round 0 trusts
FOLDER/rounds/1/calibration.json     of the model with these adapters; and so on
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from delta_attnmask.calibrating.calibrator import calibrate_rows
from delta_attnmask.calibrating.judging import PREFERENCE, jackknife_error
from delta_attnmask.calibrating.preset_choice import made_with
from delta_attnmask.calibration import FILE, Calibration, adapter_sha256, refuse_another_calibration
from delta_attnmask.errors import ArtifactError, SettingsError, TooLittleDataError
from delta_attnmask.modeling.halves import N_HALVES, half_of
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.progress import show_progress
from delta_attnmask.reading.rows import Rows
from delta_attnmask.runs import RunFolder
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.rivals import load_rivals
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.selecting.candidates import ranking_values
from delta_attnmask.settings import TRUSTED, WARM_EPOCHS, WARM_ROWS, MaskSettings, Preset, RoundsWanted
from delta_attnmask.training.examples import top_positions
from delta_attnmask.training.finetuning import train_dataset
from delta_attnmask.training.plan import LoraSettings, TrainingPlan

MOST_ROUNDS = 2  # of "auto"
LEARNING_RATE, BATCH_SIZE = 5e-4, 16

_MIN_WARM_ROWS = 16


def calibrate_in_rounds(
    loaded: LoadedModel,
    rows: Rows,
    folder: str | Path,
    rounds: RoundsWanted,
    *,
    warm_rows: int = WARM_ROWS,
    n_rows: int = 240,
    rivals: Sequence[str] = (),
    grid: Sequence[MaskSettings] | None = None,
    seed: int = 0,
    shown: bool = True,
    **compute: Any,
) -> Calibration:
    """Calibrate a model, and copies of it that learned from what they trust; the same call resumes.

    folder: for calibration.json and all that the rounds leave. rounds: how many are made; "auto" makes up to two, and
    takes one only where it raises the mean AUROC of all ways to rank by more than the difference's standard error.
    warm_rows: rows that an adapter learns from, at most. The others: as in `calibrate_rows`.
    Raises ArtifactError where the folder is another calibration's, TooLittleDataError as `calibrate_rows` does.
    """
    if rounds not in (0, 1, 2, "auto") or warm_rows < _MIN_WARM_ROWS:
        raise SettingsError(
            f"rounds={rounds!r}, warm_rows={warm_rows}: expected 0, 1, 2 or auto, and at least {_MIN_WARM_ROWS} rows"
        )
    home = Path(folder) / "rounds"
    about = made_with(loaded, rows)
    asked: dict[str, Any] = {"n_rows": n_rows, "rivals": list(rivals), "seed": seed}
    if grid is not None:
        asked["grid"] = [setting.to_dict() for setting in grid]

    def calibrated(number: int, adapters: tuple[str, ...] = ()) -> Calibration:
        place = home / str(number)
        if (place / FILE).exists():
            return _resumed(place, about, asked)
        with show_progress(f"calibrating round {number}" if number else "calibrating", shown=shown) as advance:
            found = calibrate_rows(
                loaded, rows, n_rows=n_rows, rivals=rivals, grid=grid, seed=seed, adapters=adapters,
                folder=place, on_progress=advance, **compute,
            )  # fmt: skip
        hashes = {Path(adapter).name: adapter_sha256(adapter) for adapter in adapters}
        found = Calibration({**found.report, "asked": asked, "adapters": hashes}, place)
        found.save(place)
        return found

    best = latest = calibrated(0)
    tried, seconds = [_outcome(0, best, None, is_taken=True)], float(best.report["seconds"])
    sample = rows.subset(_spaced(rows.n_rows, round(warm_rows / TRUSTED) * N_HALVES))
    for number in range(1, (MOST_ROUNDS if rounds == "auto" else rounds) + 1):
        run = _score(loaded, sample, home / str(number - 1) / "scores", latest.preset, shown, compute)
        adapters = []
        for half, trusted in enumerate(trusted_rows(run, warm_rows)):
            adapters.append(str(home / str(number) / f"half-{half}"))
            seconds += _train(loaded, sample.subset(trusted), adapters[-1], seed, shown)
        latest = calibrated(number, tuple(adapters))
        is_taken = rounds != "auto" or is_better(latest, best)
        tried.append(_outcome(number, latest, best, is_taken))
        seconds += float(latest.report["seconds"]) + run.pace.seconds
        if not is_taken:
            break
        best = latest
    n_taken = sum(one["is_taken"] for one in tried) - 1
    adapters_of = {f"rounds/{n_taken}/{name}": digest for name, digest in best.report.get("adapters", {}).items()}
    about_rounds = {"asked": rounds, "warm_rows": warm_rows, "taken": n_taken, "tried": tried}
    report = dict(best.report) | {"rounds": about_rounds, "adapters": adapters_of, "seconds": round(seconds, 1)}
    return Calibration(report, Path(folder))


def is_better(new: Calibration, old: Calibration) -> bool:
    """Whether the model distinguishes planted copies better, by more than one standard error of the difference."""
    gain, error = compare(new, old)
    return gain > error


def compare(new: Calibration, old: Calibration) -> tuple[float, float]:
    """The gain in mean AUROC over kinds of defects and ways to rank, and its standard error.

    All ways count, not only the chosen one, since which one is chosen is noise as well. Both are of the same copies, so
    that the difference is taken group by group of originals (jackknife). No gain where other kinds could be scored.
    """
    ways = [{way["name"]: way for way in one.report["ways"] if way["name"] in PREFERENCE} for one in (new, old)]
    if list(new.report["kinds"]) != list(old.report["kinds"]):
        return 0.0, 0.0
    names = ways[0].keys() & ways[1].keys()
    gain = np.mean([ways[0][name]["mean_auroc"] - ways[1][name]["mean_auroc"] for name in names])
    groups = [np.subtract(*(one[name]["auroc_without_group"] for one in ways)) for name in names]
    return round(float(gain), 4), round(jackknife_error(np.mean(groups, axis=0)), 4)


def trusted_rows(run: RunFolder, warm_rows: int) -> list[list[int]]:
    """For each half the rows of a scored run that an adapter learns from: the best half of each source.

    At most `warm_rows`, of every source the same share. Raises TooLittleDataError where a half has too few.
    """
    scores = run.read_scores()
    values = ranking_values(scores, str(run.manifest.settings["form"]))
    halves = np.array([half_of(key) for key in scores["key"].to_pylist()])
    sources = np.array(scores["source"].to_pylist())
    found = []
    for half in range(N_HALVES):
        is_own = (halves == half) & np.isfinite(values)
        share = min(TRUSTED, warm_rows / max(1, is_own.sum()))
        trusted: list[int] = []
        for source in np.unique(sources[is_own]):
            own = np.flatnonzero(is_own & (sources == source))
            trusted += own[top_positions(values[own], share)].tolist()
        if len(trusted) < _MIN_WARM_ROWS:
            raise TooLittleDataError(
                f"rounds take {_MIN_WARM_ROWS} trusted rows in each half; there are {len(trusted)}"
            )
        found.append(sorted(trusted))
    return found


def _spaced(n_rows: int, n_wanted: int) -> list[int]:
    """Up to `n_wanted` row numbers, evenly spaced."""
    chosen = np.linspace(0, n_rows - 1, min(n_rows, n_wanted)).round().astype(int)
    return list(map(int, np.unique(chosen)))


def _score(
    loaded: LoadedModel, sample: Rows, out: Path, preset: Preset, shown: bool, compute: Mapping[str, Any]
) -> RunFolder:
    columns = () if preset.judge is None else preset.judge.columns
    plan = ScoringPlan(
        settings=preset.mask,
        rivals=load_rivals(columns),
        form=preset.form,
        calibration=preset.calibration,
        judge=preset.judge,
        adapters=preset.adapters,
        **compute,
    )
    with show_progress("scoring a sample", sample.n_rows, shown=shown) as advance:
        return score_dataset(loaded, sample, out, plan, on_progress=advance)


def _train(loaded: LoadedModel, trusted: Rows, out: str, seed: int, shown: bool) -> float:
    """Train the adapter of a half; returns the seconds."""
    plan = TrainingPlan(
        lora=LoraSettings(), epochs=WARM_EPOCHS, learning_rate=LEARNING_RATE, batch_size=BATCH_SIZE, seed=seed
    )
    requires_grad = {name: weight.requires_grad for name, weight in loaded.model.named_parameters()}
    try:
        with show_progress(f"training {Path(out).name}", trusted.n_rows, shown=shown) as advance:
            outcome = train_dataset(
                loaded, trusted, out, plan, n_workers=0,
                on_progress=lambda what, n_done, n_rows, n_skipped: advance(n_done, n_rows),
            )  # fmt: skip
    finally:
        loaded.model.eval()
        for name, weight in loaded.model.named_parameters():
            weight.requires_grad_(requires_grad.get(name, False))
    return float(outcome.about["seconds"])


def _resumed(place: Path, about: Mapping[str, Any], asked: Mapping[str, Any]) -> Calibration:
    refuse_another_calibration(place, about)
    found = Calibration.load(place)
    if found.report.get("asked") != asked:
        raise ArtifactError(f"{place} was calibrated with {found.report.get('asked')}, not {asked}; use a new folder")
    return found


def _outcome(number: int, found: Calibration, before: Calibration | None, is_taken: bool) -> dict[str, Any]:
    gain, error = (None, None) if before is None else compare(found, before)
    return {
        "round": number,
        "form": found.form,
        "copies_kept": found.report["chosen"]["copies_kept"],
        "gain": gain,
        "standard_error": error,
        "is_taken": is_taken,
    }

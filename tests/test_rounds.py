"""Cross-fitted rounds: who learns from what, who scores what, when a round is taken, and what a second start does."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from delta_attnmask import DeltaAttnMask
from delta_attnmask.calibration import FILE, Calibration
from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.manifest import Shard
from delta_attnmask.modeling.halves import half_of
from delta_attnmask.modeling.load import load_model, model_fingerprint
from delta_attnmask.reading.rows import Rows, load_rows
from delta_attnmask.results import Scores
from delta_attnmask.rounds import is_better, trusted_rows
from delta_attnmask.runs import RunFolder, merge_run
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.scoring.worker import Recipe, Task
from delta_attnmask.settings import TRUSTED, MaskSettings

GRID = (MaskSettings(fraction=0.4, block=-2),)
HOW = {"n_rows": 60, "grid": GRID, "warm_rows": 20, "progress": False}


@pytest.fixture(scope="module")
def rows(embedded: Path) -> Rows:
    return load_rows(embedded / "pool.json", embedded / "images", limit=120)


@pytest.fixture(scope="module")
def scorer(tiny_model: Path) -> DeltaAttnMask:
    return DeltaAttnMask.from_pretrained(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def folder(scorer: DeltaAttnMask, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration with one round."""
    folder = tmp_path_factory.mktemp("rounds")
    scorer.calibrate(rows, rounds=1, out=folder, **HOW).save(folder)
    return folder


def test_each_row_is_scored_by_the_adapter_that_learned_from_the_other_half(
    scorer: DeltaAttnMask, rows: Rows, folder: Path, tmp_path: Path
) -> None:
    found = scorer.score(rows, settings=folder, out=tmp_path / "run").table
    for half in (0, 1):
        alone = load_model(str(folder / f"rounds/1/half-{half}"), device="cpu")
        run = score_dataset(alone, rows, tmp_path / str(half), ScoringPlan(GRID[0]))
        scored_by_it = np.array([half_of(key) != half for key in found["key"].to_pylist()])
        losses = [np.array(table["loss"], np.float64)[scored_by_it] for table in (found, run.read_scores())]
        np.testing.assert_allclose(*losses, atol=2e-5)
        learned = set(pq.read_table(folder / f"rounds/1/half-{half}/rows.parquet")["key"].to_pylist())
        assert learned
        assert not learned & set(np.array(found["key"])[scored_by_it])
    base = scorer.score(rows, settings="relative").table
    assert np.abs(np.array(base["loss"], np.float64) - np.array(found["loss"], np.float64)).max() > 1e-3


def test_an_adapter_learns_from_the_best_half_of_each_source(folder: Path) -> None:
    run = RunFolder.open(folder / "rounds/0/scores")
    scores = run.read_scores().append_column("score", [Scores.load(run.path).table["score"]])
    values, halves = scores["score"].to_pylist(), [half_of(key) for key in scores["key"].to_pylist()]
    for half, trusted in enumerate(trusted_rows(run, 1000)):
        assert {halves[row] for row in trusted} == {half}
        for source in set(scores["source"].to_pylist()):
            own = [i for i, one in enumerate(scores["source"].to_pylist()) if one == source and halves[i] == half]
            kept = [i for i in own if i in trusted]
            assert len(kept) == (max(1, round(TRUSTED * len(own))) if own else 0)
            lowest = min((values[i] for i in kept), default=np.inf)
            assert lowest >= max((values[i] for i in own if i not in trusted), default=-np.inf)
    assert all(len(trusted) <= 24 for trusted in trusted_rows(run, 20))


def test_the_model_is_left_as_it_was(scorer: DeltaAttnMask, rows: Rows, folder: Path, tiny_model: Path) -> None:
    fresh = load_model(str(tiny_model), device="cpu")
    assert model_fingerprint(scorer.loaded.model) == model_fingerprint(fresh.model)
    assert all(weight.requires_grad for weight in scorer.loaded.model.parameters())
    assert not scorer.loaded.model.training


def test_a_second_start_does_only_what_is_missing_and_finds_the_same(
    scorer: DeltaAttnMask, rows: Rows, folder: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    for lost in ("rounds/1/half-1", f"rounds/1/{FILE}", FILE):
        path = again / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    kept = again / "rounds/1/half-0/adapter_model.safetensors"
    before = kept.stat().st_mtime_ns
    found = scorer.calibrate(rows, rounds=1, out=again, **HOW)
    assert kept.stat().st_mtime_ns == before
    whole = Calibration.load(folder).report
    assert found.report["adapters"] == whole["adapters"]
    assert found.report["ways"] == whole["ways"]
    with pytest.raises(ArtifactError, match=r"was calibrated with .*; use a new folder"):
        scorer.calibrate(rows, rounds=1, out=again, **HOW | {"n_rows": 61})


def test_shards_and_workers_elsewhere_score_the_same(
    scorer: DeltaAttnMask, rows: Rows, folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    preset = Calibration.load(folder).preset
    plan = ScoringPlan(GRID[0], form="delta", adapters=preset.adapters)
    for index in range(2):
        score_dataset(scorer.loaded, rows, tmp_path / "shards", plan, unit_rows=50, shard=Shard(index, 2))
    shards = merge_run(tmp_path / "shards").read_scores()
    recipe = Recipe(Task(rows, str(tmp_path / "elsewhere"), plan, 120), str(tiny_model), device="cpu")
    worker = recipe()
    with RunFolder.start(tmp_path / "elsewhere", worker.manifest) as run:
        list(worker.run([0]))
        run.mark_complete()
    elsewhere = run.read_scores()
    np.testing.assert_allclose(np.array(shards["loss"]), np.array(elsewhere["loss"]), atol=2e-5)
    assert run.manifest.settings["adapters"] == list(Calibration.load(folder).report["adapters"].values())


def test_a_round_is_taken_where_copies_are_told_apart_better_beyond_the_noise() -> None:
    def calibration(auroc: float, *groups: float, kinds: tuple[str, ...] = ("flipped",)) -> Calibration:
        way = {"name": "low_loss", "mean_auroc": auroc, "auroc_without_group": [auroc + one for one in groups]}
        control = {"name": "judge_with_random_delta", "mean_auroc": 1.0, "auroc_without_group": [1.0] * len(groups)}
        return Calibration({"ways": [way, control], "kinds": dict.fromkeys(kinds)})

    old = calibration(0.70, 0.00, 0.02, -0.02)
    assert is_better(calibration(0.72, 0.00, 0.02, -0.02), old)  # the noise is the same in both
    assert not is_better(calibration(0.72, 0.05, -0.06, 0.01), old)
    assert not is_better(calibration(0.70, 0.00, 0.02, -0.02), old)
    assert not is_better(calibration(0.72, 0.00, 0.02, -0.02, kinds=("truncated",)), old)


def test_what_planted_copies_decide_is_said(scorer: DeltaAttnMask, rows: Rows, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "rounds", tmp_path / "rounds")
    found = scorer.calibrate(rows, rounds="auto", out=tmp_path, **HOW)
    about = found.report["rounds"]
    first, second = about["tried"][:2]
    assert first["is_taken"]
    assert second["is_taken"] == (second["gain"] > second["standard_error"])
    assert about["taken"] == sum(one["is_taken"] for one in about["tried"]) - 1
    assert bool(found.adapters) == (about["taken"] > 0)
    assert "round 1" in found.describe()


def test_adapters_that_were_changed_or_lie_elsewhere_are_refused(folder: Path, tmp_path: Path) -> None:
    report = dict(Calibration.load(folder).report)
    shutil.copytree(folder, tmp_path / "cal")
    weights = tmp_path / "cal/rounds/1/half-0/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="isn't the adapter that was calibrated"):
        Calibration.load(tmp_path / "cal")
    weights.unlink()
    with pytest.raises(ArtifactError, match="calibrate again into a new folder"):
        Calibration.load(tmp_path / "cal")
    for name in ("../elsewhere", "/elsewhere"):
        (tmp_path / "cal" / FILE).write_text(json.dumps(report | {"adapters": {name: "cafe"}}))
        with pytest.raises(ArtifactError, match="isn't below the folder of its calibration"):
            Calibration.load(tmp_path / "cal")


def test_a_run_keeps_the_adapters_that_it_was_scored_with(
    scorer: DeltaAttnMask, rows: Rows, folder: Path, tmp_path: Path
) -> None:
    scores = scorer.score(rows, settings=folder, out=tmp_path / "run")
    assert Calibration.load(tmp_path / "run").adapters == tuple(
        str(tmp_path / "run" / f"rounds/1/half-{half}") for half in (0, 1)
    )
    scores.save(tmp_path / "saved")
    assert Scores.load(tmp_path / "saved").calibration == scores.calibration
    assert scores.calibration is not None
    assert scores.calibration.covers(scores.form, scores.manifest.settings)
    assert not scores.calibration.covers(scores.form, {**scores.manifest.settings, "adapters": []})


def test_a_folder_that_was_calibrated_with_other_rounds_is_refused(
    scorer: DeltaAttnMask, rows: Rows, folder: Path, tmp_path: Path
) -> None:
    Calibration.load(folder).save(tmp_path / "run")
    with pytest.raises(SettingsError, match="was calibrated with rounds=1, not 2"):
        scorer.score(rows, rounds=2, out=tmp_path / "run")


def test_rounds_that_cannot_be_are_refused(scorer: DeltaAttnMask, rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give a folder on this machine"):
        scorer.calibrate(rows, rounds=1, **HOW)
    with pytest.raises(SettingsError, match="give a folder on this machine"):
        scorer.score(rows, rounds=1)
    with pytest.raises(SettingsError, match="rounds are a part of calibrating"):
        scorer.score(rows, settings="relative", rounds=1)
    with pytest.raises(SettingsError, match="expected 0, 1, 2 or auto"):
        scorer.calibrate(rows, rounds=3, out=tmp_path, **HOW)  # type: ignore[arg-type]

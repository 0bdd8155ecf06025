"""A run that goes by a judge: one forward without a mask, and the chance that each row is good beside its scores."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from delta_attnmask import Calibration, DeltaAttnMask, Scores
from delta_attnmask.derived import derive
from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.judge import Feature, Judge
from delta_attnmask.modeling.capture import CapturedForward
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.delta import sweep_batch
from delta_attnmask.settings import MaskSettings
from tests.families import FAMILIES

JUDGE = Judge((Feature("loss", (0.0, 1.0, 4.0), -1.0), Feature("el2n", (0.0, 0.5, 1.2), -0.5)), 0.25)


def calibration_of(judge: Judge, settings: MaskSettings) -> Calibration:
    report: dict[str, Any] = {
        "settings": settings.to_dict(),
        "form": "p_good",
        "judge": judge.to_dict(),
        "warnings": [],
    }
    return Calibration(report)


@pytest.fixture(scope="module")
def scorer(embedded_model: LoadedModel) -> DeltaAttnMask:
    return DeltaAttnMask(embedded_model.model, embedded_model.processor, name="embedded")


@pytest.fixture(scope="module")
def rows(embedded: Path) -> FileRows:
    return FileRows(embedded / "pool.json", embedded / "images", limit=8)


def column(scores: Scores, name: str) -> np.ndarray:
    return np.array(scores.stored[name].to_pylist(), dtype=float)


def test_one_forward_gives_the_chance_of_each_row(scorer, rows, tmp_path):
    unmasked = calibration_of(JUDGE, MaskSettings(fraction=0))
    scores = scorer.score(rows, calibration=unmasked, out=tmp_path / "run")
    assert scores.form == "p_good"
    expected = JUDGE.p_good(lambda name: column(scores, name))
    assert column(scores, "p_good") == pytest.approx(expected, abs=1e-6)
    assert column(scores, "delta").tolist() == [0.0] * 8
    assert Scores.load(tmp_path / "run").select(2).indices.tolist() == scores.select(2).indices.tolist()
    other = calibration_of(Judge(JUDGE.features, 0.5), MaskSettings(fraction=0))
    with pytest.raises(ArtifactError, match="judge"):
        scorer.score(rows, calibration=other, out=tmp_path / "run")


def test_a_judge_may_read_what_follows_from_delta(scorer, rows):
    judge = Judge((Feature("delta_minus_loss", (-4.0, 0.0, 2.0), 1.0),), 0.0)
    scores = scorer.score(rows, calibration=calibration_of(judge, MaskSettings(fraction=0.4)))
    assert np.abs(column(scores, "delta")).max() > 0
    expected = judge.p_good(lambda name: derive(name, lambda stored: column(scores, stored)))
    assert column(scores, "p_good") == pytest.approx(expected, abs=1e-6)


def test_a_mask_beside_a_judge_that_needs_none(scorer, rows, tmp_path):
    from delta_attnmask.scorer import make_plan

    found = calibration_of(JUDGE, MaskSettings(fraction=0))
    plan, used = make_plan(scorer.loaded, rows, None, settings=found, changes={"fraction": 0.3}, shown=False)
    assert (plan.settings.fraction, plan.judge, used) == (0.3, JUDGE, found)
    with pytest.raises(SettingsError, match="block: the calibration chose a score that masks nothing"):
        make_plan(scorer.loaded, rows, None, settings=found, changes={"block": -2}, shown=False)


def test_nothing_is_run_again_where_nothing_is_masked(monkeypatch):
    ids = torch.randint(5, 20, (2, 12))
    labels = ids.clone()
    labels[:, :6] = -100
    model, unmasked = FAMILIES["Llama"].build(), MaskSettings(fraction=0, block=-1)
    sweep_batch(model, {"input_ids": ids}, labels, [unmasked])  # with the self-check, which runs tails
    monkeypatch.delattr(CapturedForward, "run_masked")
    found = sweep_batch(model, {"input_ids": ids}, labels, [unmasked])
    assert torch.equal(found.scores[0].masked_loss, found.scores[0].loss)

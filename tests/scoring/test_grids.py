"""What a sweep holds, and what of it a model can have."""

import pyarrow.parquet as pq
import pytest

from delta_attnmask.calibration import Candidate
from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan, fit_grid
from delta_attnmask.settings import CONTROLS, STANDARD_GRID, MaskSettings, calibration_grid
from tests.families import FAMILIES


def test_the_grid_varies_every_setting_and_holds_the_controls() -> None:
    assert len(set(STANDARD_GRID)) == len(STANDARD_GRID) == 26
    tried = [setting.to_dict() for setting in STANDARD_GRID]
    found = {name: {setting[name] for setting in tried} for name in tried[0]}
    assert found == {
        "queries": {"all", "answer"},
        "tokens": {"all", "prompt", "image"},
        "fraction": {0.1, 0.2, 0.4},
        "block": {-2, -4},
        "replacement": {"zero", "mean"},
        "order": {"most", "random", "least"},
        "exclude": {"none", "special"},
    }
    assert set(CONTROLS) < set(STANDARD_GRID)


def test_calibration_means_the_same_depth_in_every_decoder() -> None:
    for n_blocks, blocks in ((4, {-4, -3, -2}), (28, {-22, -15, -8}), (8, {-7, -5, -3})):
        grid = calibration_grid(n_blocks)
        assert len(set(grid)) == len(grid) == 12
        assert {setting.block for setting in grid} == blocks
        assert {setting.fraction for setting in grid if setting.order == "most"} == {0.2, 0.4, 0.6}
        assert sum(setting.order == "random" for setting in grid) == 3


def test_no_two_settings_are_told_by_the_same_name() -> None:
    assert len({str(Candidate("delta", setting)) for setting in STANDARD_GRID}) == len(STANDARD_GRID)


def test_a_model_gets_what_it_can_have() -> None:
    sighted, text_only = (examine(FAMILIES[name].build()) for name in ("LLaVA", "Llama"))
    assert fit_grid(STANDARD_GRID, sighted) == STANDARD_GRID
    assert set(STANDARD_GRID) - set(fit_grid(STANDARD_GRID, text_only)) == {
        MaskSettings(queries="all", tokens="image", block=-2)
    }
    assert fit_grid([MaskSettings(block=-99), MaskSettings(block=99), MaskSettings.paper()], sighted) == (
        MaskSettings.paper(),
    )


def test_where_late_blocks_can_not_be_masked_an_earlier_one_is_named() -> None:
    sharing = examine(FAMILIES["Gemma 3n"].build())
    assert not sharing.has_block(-2)
    fitting = fit_grid(STANDARD_GRID, sharing)
    assert {setting.block for setting in fitting} == {sharing.last_block - sharing.n_blocks}
    assert all(sharing.has_block(setting.block) for setting in fitting)
    assert len(set(fitting)) == len(fitting) < len(STANDARD_GRID)


def test_a_run_holds_what_its_model_could_have(embedded_model: LoadedModel, embedded, tmp_path) -> None:
    dataset = FileRows(embedded / "pool.json", embedded / "images", limit=6)
    plan = ScoringPlan(MaskSettings.paper(), (*STANDARD_GRID, MaskSettings(block=-99)))
    run = score_dataset(embedded_model, dataset, tmp_path / "run", plan)
    kept = [MaskSettings.from_dict(one) for one in run.manifest.settings["sweep"]]
    assert kept == list(STANDARD_GRID)
    lines = pq.read_table(run.unit_path(0, "sweep")).to_pylist()
    assert len(lines) == 6 * len(kept)
    told = [{name: line[name] for name in MaskSettings().to_dict()} for line in lines[: len(kept)]]
    assert told == [setting.to_dict() for setting in kept]
    with pytest.raises(SettingsError, match="block=-99"):
        score_dataset(embedded_model, dataset, tmp_path / "other", ScoringPlan(MaskSettings(block=-99)))

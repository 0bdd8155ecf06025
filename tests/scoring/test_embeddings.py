"""Embeddings are the pooled states of the middle block, and a run keeps one for each row that was scored."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from delta_attnmask import MaskSettings
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import merge_run
from delta_attnmask.scores import embedding_table
from delta_attnmask.scoring.delta import sweep_batch
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.selecting.run_selection import read_embeddings
from tests.families import FAMILIES

ROUNDING = 1e-5


@pytest.mark.parametrize("name", ["LLaVA", "Qwen2-VL", "Llama"])
def test_the_mean_of_the_middle_states(name: str) -> None:
    family = FAMILIES[name]
    model = family.build()
    inputs, labels = family.inputs()
    found = sweep_batch(model, inputs, labels, [MaskSettings.paper()], embed=True)
    middle = examine(model).middle_block
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states[middle + 1]
    for sample, is_token in enumerate(inputs["attention_mask"].bool()):
        expected = states[sample, is_token][1:].mean(0)
        assert (found.embeddings[sample] - expected / expected.norm()).abs().max() < ROUNDING
    plain = sweep_batch(model, inputs, labels, [MaskSettings.paper()])
    assert plain.embeddings is None
    assert torch.equal(plain.scores[0].delta, found.scores[0].delta)


def test_padding_changes_nothing() -> None:
    family = FAMILIES["LLaVA"]
    model = family.build()
    right, left = (
        sweep_batch(model, *family.inputs(padding), [MaskSettings.paper()], embed=True).embeddings
        for padding in ("right", "left")
    )
    assert (right - left).abs().max() < ROUNDING


def test_a_run_keeps_them(embedded: Path, embedded_model: LoadedModel, tmp_path: Path) -> None:
    dataset = FileRows(embedded / "pool.json", embedded / "images", limit=10)
    run = score_dataset(embedded_model, dataset, tmp_path, ScoringPlan(MaskSettings.paper(), embed=True), unit_rows=4)
    vectors = read_embeddings(run, np.array([7, 2]))
    assert vectors.shape == (2, embedded_model.model.config.get_text_config().hidden_size)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
    assert not np.allclose(vectors[0], vectors[1])


def test_a_table_without_rows() -> None:
    one = embedding_table({0: np.ones(3, dtype=np.float16)}, 3)
    assert embedding_table({}, 3).schema == one.schema
    assert embedding_table({}, 3).num_rows == 0


def test_units_without_a_scored_row_are_merged_with_others(
    embedded: Path, embedded_model: LoadedModel, tmp_path: Path
) -> None:
    rows = json.loads((embedded / "pool.json").read_text())[:6]
    (tmp_path / "data.json").write_text(json.dumps([5, 6, *rows[:2], 7, 8, *rows[2:]]))
    dataset = FileRows(tmp_path / "data.json", embedded / "images")
    plan = ScoringPlan(MaskSettings.paper(), embed=True)
    run = score_dataset(embedded_model, dataset, tmp_path / "run", plan, unit_rows=2)
    schemas = {run.read_files([file]).schema for file in run.unit_files("embeddings")}
    assert len(schemas) == 1
    wanted = np.array([2, 3, 6, 9])
    before = read_embeddings(run, wanted)
    merged = merge_run(tmp_path / "run")
    assert len(merged.unit_files("embeddings")) == 1
    assert np.array_equal(read_embeddings(merged, wanted), before)

"""Columns of the data itself: kept beside the scores, and quotas like any other."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from delta_attnmask import DeltaAttnMask, Scores, SettingsError, load_rows
from delta_attnmask.modeling.load import LoadedModel
from tests.cli.test_commands import call
from tests.reading.builders import make_row, write_list

TOPICS = ["cats", 7, None, "cats", ["a", 1], 7, "cats", 7]
TEXTS = ["cats", "7", "", "cats", '["a", 1]', "7", "cats", "7", ""]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [make_row(number, topic=topic) for number, topic in enumerate(TOPICS)]
    return write_list(tmp_path / "data.json", [*rows, make_row(8)])


def test_from_the_command_line_to_a_quota_and_an_export(data, embedded, tmp_path, capsys):
    given = ["--model", embedded / "model", "--data", data, "--out", tmp_path / "run", "--settings", "relative"]
    assert call("score", *given, "--column", "topic") == 0
    scores = Scores.load(tmp_path / "run")
    assert scores.stored["topic"].to_pylist() == TEXTS
    assert call("select", tmp_path / "run", "--keep", "4", "--quota-by", "topic", "--out", tmp_path / "kept.json") == 0
    (note,) = tmp_path.glob("kept.json.selection.json")
    assert json.loads(note.read_text())["options"]["quota_by"] == ["topic"]
    assert len(load_rows(tmp_path / "kept.json", columns=["topic"])) == 4
    assert call("export", tmp_path / "run", "--scores", "--out", tmp_path / "scored.parquet") == 0
    exported = pq.read_table(tmp_path / "scored.parquet")
    assert exported["score_topic"].to_pylist() == TEXTS
    assert exported["score_score"].to_pylist() == scores.table["score"].to_pylist()
    assert scores.to_pandas()["score"].notna().all()
    assert call("score", *given) == 2
    assert "settings.columns: ['topic'] there, None now" in capsys.readouterr().err


def test_of_rows_in_memory(embedded_model: LoadedModel):
    rows = [make_row(number, topic=topic) for number, topic in enumerate(TOPICS)]
    scorer = DeltaAttnMask(embedded_model.model, embedded_model.processor)
    scores = scorer.score(rows, columns=["topic"], settings="relative", progress=False)
    assert scores.table["topic"].to_pylist() == TEXTS[:-1]
    selection = scores.select(4, quota_by="topic", min_per_stratum=1)
    assert {TEXTS[row] for row in selection.indices} == {"cats", "7", "", '["a", 1]'}
    with pytest.raises(SettingsError, match="the scores have a column of this name"):
        scorer.score([row | {"loss": 1} for row in rows], columns=["loss"], settings="relative", progress=False)


def test_a_column_that_no_row_has(data):
    with pytest.raises(SettingsError, match="column='topik': the first rows have no such key; they have conversations"):
        load_rows(data, columns=["topik"])

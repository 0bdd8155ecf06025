"""The public contract: score, calibrate, select and keep, on rows in memory and in files, as the command line does."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from delta_attnmask import (
    Calibration,
    DataError,
    DeltaAttnMask,
    MaskSettings,
    Scores,
    SettingsError,
    load_rows,
    select_rows,
)
from delta_attnmask.cli import main
from delta_attnmask.runs import RunFolder

N_ROWS = 24
NUMBERS = ("loss", "masked_loss", "delta", "score")
Line = dict[str, Any]


@pytest.fixture(scope="module")
def lines(embedded: Path) -> list[Line]:
    """Rows as the file has them, one of them bad: its image is missing."""
    found: list[Line] = json.loads((embedded / "pool.json").read_text())[:N_ROWS]
    broken = next(line for line in found if line.get("image"))
    broken["image"] = "none.png"
    return found


@pytest.fixture(scope="module")
def file(lines: list[Line], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.json"
    path.write_text(json.dumps(lines))
    return path


@pytest.fixture(scope="module")
def in_memory(lines: list[Line], embedded: Path) -> list[Line]:
    """The same rows with PIL images; the bad one has bytes that are no image."""
    return [{**line, "image": [picture(embedded, path) for path in paths_of(line)]} for line in lines]


def paths_of(line: Line) -> list[str]:
    image = line.get("image") or []
    return image if isinstance(image, list) else [image]


def picture(embedded: Path, path: str) -> Any:
    return b"no image" if path == "none.png" else Image.open(embedded / "images" / path)


@pytest.fixture(scope="module")
def scorer(embedded: Path) -> DeltaAttnMask:
    return DeltaAttnMask.from_pretrained(str(embedded / "model"), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def scores(scorer: DeltaAttnMask, in_memory: list[Line]) -> Scores:
    return scorer.score(in_memory, settings="relative", embeddings=True)


def numbers(scores: Scores) -> np.ndarray:
    return np.array([scores.table[name].to_numpy(zero_copy_only=False) for name in NUMBERS])


def test_rows_in_memory_and_files_give_what_the_command_line_gives(
    scorer: DeltaAttnMask, scores: Scores, in_memory: list[Line], file: Path, embedded: Path, tmp_path: Path
) -> None:
    given = ["--model", embedded / "model", "--data", file, "--images", embedded / "images"]
    command = ["score", *given, "--out", tmp_path / "command", "--settings", "relative", "--dtype", "float32"]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, command)])
    assert ended.value.code == 0
    by_command = Scores.load(tmp_path / "command")
    columns = {name: [line[name] for line in in_memory] for name in ("id", "conversations")}
    images = [[image if isinstance(image, Image.Image) else None for image in line["image"]] for line in in_memory]
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "conversations": datasets.List({name: datasets.Value("string") for name in ("from", "value")}),
            "images": datasets.List(datasets.Image()),
        }
    )
    dataset = datasets.Dataset.from_dict({**columns, "images": images}, features=features)
    before = dataset.features.copy()
    others = {
        "list": scores,
        "dataset": scorer.score(dataset, settings="relative"),
        "file": scorer.score(file, images=embedded / "images", settings=MaskSettings()),
        "loaded rows": scorer.score(load_rows(file, embedded / "images"), settings="relative"),
        "folder": scorer.score(file, images=embedded / "images", settings="relative", out=tmp_path / "run"),
        "worker processes": scorer.score(in_memory, settings="relative", workers=2),
    }
    for name, other in others.items():
        assert np.allclose(numbers(other), numbers(by_command), atol=1e-6, equal_nan=True), name
        assert other.table["status"].to_pylist() == by_command.table["status"].to_pylist(), name
        assert len(other) == N_ROWS
    assert dataset.features == before
    (bad,) = [row for row in scores.table.to_pylist() if row["status"] != "ok"]
    assert (bad["reason_code"], bad["loss"], bad["score"]) == ("image_unreadable", None, None)
    assert "expected JPEG" in bad["reason"]
    assert [row["reason_code"] for row in by_command.table.to_pylist()].count("image_missing") == 1


def test_the_table_has_a_line_for_each_row_and_the_column_that_ranks(scores: Scores) -> None:
    frame = scores.to_pandas()
    assert list(frame["row"]) == [*range(N_ROWS)]
    assert frame["id"].nunique() == N_ROWS
    assert {"source", "status", "reason", "reason_code", "loss", "masked_loss", "delta", "score"} <= {*frame.columns}
    good = frame[frame["status"] == "ok"]
    assert np.allclose(good["score"], good["delta"] / (good["loss"] + 0.05), rtol=1e-5)


def test_selecting_is_the_commands(scores: Scores, in_memory: list[Line]) -> None:
    kept = scores.select("25%", quota_by="source")
    assert kept.indices.dtype == np.int64
    assert len(kept.indices) == round(0.25 * (N_ROWS - 1))
    assert len([in_memory[index] for index in kept.indices]) == len(kept)
    assert kept.report["rule"] == "quota"
    for keep in (0.25, 6):
        assert scores.select(keep, quota_by="source").indices.tolist() == kept.indices.tolist()
    best = scores.select(3, rule="top").indices
    frame = scores.to_pandas()
    assert best.tolist() == frame.sort_values("score", ascending=False)["row"].head(3).tolist()
    for table in (scores.table, frame, scores):
        assert select_rows(table, 3, rule="top").indices.tolist() == best.tolist()
    assert len(scores.select(4, rule="diverse")) == 4  # by the embeddings, in memory


def test_scores_are_kept_as_the_command_lines_run_folder(scores: Scores, tmp_path: Path) -> None:
    scores.save(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    assert run.is_complete
    assert (run.manifest.data, run.manifest.n_rows) == ("", N_ROWS)
    again = Scores.load(tmp_path / "run")
    assert again.table.equals(scores.table)
    assert again.manifest == scores.manifest
    assert again.select(4, rule="diverse").indices.tolist() == scores.select(4, rule="diverse").indices.tolist()


def test_a_run_is_resumed_and_another_one_refused(
    scorer: DeltaAttnMask, in_memory: list[Line], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"settings": "relative", "out": tmp_path / "run", "unit_rows": 4}
    whole = scorer.score(in_memory, **options)
    (tmp_path / "run" / "scores" / "unit-00002.parquet").unlink()
    (tmp_path / "run" / "complete.json").unlink()
    capsys.readouterr()
    again = scorer.score(in_memory, **options, progress=True)
    assert "20/24 rows" in capsys.readouterr().err
    assert np.array_equal(numbers(again), numbers(whole), equal_nan=True)
    with pytest.raises(Exception, match="holds another run"):
        scorer.score(in_memory[1:], **options)


def test_calibrating_is_optional_kept_and_used(
    scorer: DeltaAttnMask, embedded: Path, in_memory: list[Line], tmp_path: Path
) -> None:
    rows = load_rows(embedded / "pool.json", embedded / "images", limit=240)
    calibration = scorer.calibrate(rows, n_rows=60, grid=[MaskSettings(), MaskSettings.paper()])
    assert calibration.report["n_originals"] == 60
    calibration.save(tmp_path / "cal")
    assert Calibration.load(tmp_path / "cal") == calibration
    scores = scorer.score(in_memory[:8], calibration=calibration)
    assert scores.manifest.settings["calibration"] == calibration.sha256
    assert scores.form == calibration.form
    assert scores.calibration == calibration
    with pytest.raises(SettingsError, match="both given"):
        scorer.score(in_memory[:8], calibration=calibration, settings="paper")


def test_without_settings_it_calibrates_by_itself_where_there_are_enough_rows(
    scorer: DeltaAttnMask, in_memory: list[Line], capsys: pytest.CaptureFixture[str]
) -> None:
    scores = scorer.score(in_memory[:8])
    assert scores.calibration is None
    assert scores.form == "relative_delta"
    assert "too few to calibrate on" in capsys.readouterr().err


def test_a_model_of_the_users_own_is_left_as_it_was(scorer: DeltaAttnMask, in_memory: list[Line]) -> None:
    model = scorer.loaded.model
    model.train()
    own = DeltaAttnMask(model, scorer.loaded.processor)
    try:
        found = own.score(in_memory[:6], settings="paper")
        assert all(module.training for module in model.modules())
        assert found.form == "delta"
    finally:
        model.eval()


def test_what_is_no_data_is_refused(scorer: DeltaAttnMask) -> None:
    for rows in (5, {"train": []}, []):
        with pytest.raises(DataError):
            scorer.score(rows, settings="relative")

"""Comparisons of evaluations whose answers are known, against numbers worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from delta_attnmask import ArtifactError, SettingsError
from delta_attnmask.cli.compare import compare
from delta_attnmask.evaluating.comparing import compare_evaluations
from delta_attnmask.manifest import Manifest
from delta_attnmask.records import Fingerprint
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import SampleScore
from tests.evaluating.folders import write_evaluation

YES, NO = (True,), (False,)


def test_accuracies_differences_and_the_sign_test_by_hand(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "one", [YES, YES, NO, NO, YES, NO], "aaaabb")
    two = write_evaluation(tmp_path / "two", [YES, NO, YES, YES, YES, YES], "aaaabb")
    found = compare_evaluations([("one", one), ("two", two)])
    assert found["baseline"] == "one"
    assert (found["n_answers"], found["n_rows"], found["n_left_out"]) == (6, 6, 0)
    figures = found["methods"]["two"]
    assert figures["sources"]["a"]["value"] == 0.75
    assert figures["sources"]["b"]["value"] == 1.0
    assert figures["mean_over_sources"]["value"] == 0.875
    assert figures["pooled"]["value"] == pytest.approx(5 / 6)
    against = figures["against_baseline"]
    assert (against["images_better"], against["images_worse"]) == (3, 1)
    assert against["p"] == pytest.approx(2 * (1 + 4) / 16)  # McNemar: four rows differ, one of them for the worse
    assert against["mean_over_sources"]["value"] == pytest.approx((0.25 + 0.5) / 2)
    assert against["pooled"]["value"] == pytest.approx(2 / 6)
    assert "against_baseline" not in found["methods"]["one"]


def test_the_difference_of_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    losses = rng.normal(2, 1, 40)
    one = write_evaluation(tmp_path / "one", [YES] * 40, "a" * 40, losses=losses.tolist())
    two = write_evaluation(tmp_path / "two", [YES] * 40, "a" * 40, losses=(losses - 0.1).tolist())
    found = compare_evaluations([("one", one), ("two", two)], measure="loss")
    figures = found["methods"]["two"]
    assert figures["pooled"]["value"] == pytest.approx(losses.mean() - 0.1, abs=1e-6)
    against = figures["against_baseline"]
    assert [against["pooled"][name] for name in ("value", "low", "high")] == pytest.approx([-0.1] * 3, abs=1e-6)
    assert (against["images_better"], against["images_worse"]) == (40, 0)
    compare(f"one={one}", f"two={two}", measure="loss")
    printed = capsys.readouterr().out
    assert "loss (nats per token, less is better) on 40 answers" in printed
    assert "against baseline: -0.1000 (-0.1000 to -0.1000)" in printed


def test_rows_of_one_image_count_once(tmp_path: Path) -> None:
    """Ten rows about one image, all better: one image speaks, not ten rows."""
    right, images = [YES] * 10 + [NO, YES] * 5, "a" * 10 + "bcdefghijk"
    one = write_evaluation(tmp_path / "one", [NO] * 20, "s" * 20, images=images)
    two = write_evaluation(tmp_path / "two", right, "s" * 20, images=images)
    alone = write_evaluation(tmp_path / "alone", right, "s" * 20)
    clustered = compare_evaluations([("one", one), ("two", two)])["methods"]["two"]["against_baseline"]
    by_row = compare_evaluations([("alone", alone), ("one", one)], baseline="one")["methods"]["alone"]
    assert (clustered["images_better"], clustered["images_worse"]) == (6, 0)
    assert by_row["against_baseline"]["images_better"] == 15
    assert clustered["pooled"]["value"] == by_row["against_baseline"]["pooled"]["value"] == 0.75
    widths = [one["high"] - one["low"] for one in (clustered["pooled"], by_row["against_baseline"]["pooled"])]
    assert widths[0] > 1.2 * widths[1]


def test_pairing_narrows_the_interval_of_the_difference(tmp_path: Path) -> None:
    right = [YES if row % 2 else NO for row in range(40)]
    one = write_evaluation(tmp_path / "one", right, "a" * 40)
    two = write_evaluation(tmp_path / "two", [YES, *right[1:]], "a" * 40)
    found = compare_evaluations([("one", one), ("two", two)])["methods"]["two"]
    difference, accuracy = found["against_baseline"]["pooled"], found["pooled"]
    assert difference["value"] == pytest.approx(1 / 40)
    assert difference["high"] - difference["low"] < 0.5 * (accuracy["high"] - accuracy["low"])
    assert difference["low"] == 0.0


def test_only_answers_that_all_gave_are_compared(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "one", [YES, None, (True, False)], "aaa")
    two = write_evaluation(tmp_path / "two", [NO, YES, (True, True)], "aaa")
    found = compare_evaluations([("one", one), ("two", two)])
    assert (found["n_answers"], found["n_rows"], found["n_left_out"]) == (3, 2, 1)
    assert found["methods"]["one"]["pooled"]["value"] == pytest.approx(2 / 3)
    # Rows are what is paired: the row of two answers is better by one of them.
    assert found["methods"]["two"]["against_baseline"]["images_better"] == 1
    assert found["methods"]["two"]["against_baseline"]["images_worse"] == 1


def test_seeds_are_paired_by_number_and_their_spread_is_told(tmp_path: Path) -> None:
    def evaluation(name: str, right: list[tuple[bool, ...]], seed: int) -> tuple[str, Path]:
        path = write_evaluation(tmp_path / f"{name}{seed}", right, "aaaa", note={"seed": seed, "seconds": 10.0 + seed})
        return name, path

    runs = [
        evaluation("base", [YES, YES, NO, NO], 1),
        evaluation("base", [NO, NO, NO, NO], 2),
        evaluation("new", [YES, NO, NO, NO], 2),
        evaluation("new", [YES, YES, YES, NO], 1),
    ]
    found = compare_evaluations(runs)["methods"]
    assert found["base"]["over_seeds"]["values"] == [0.5, 0.0]
    assert found["base"]["over_seeds"]["sd"] == pytest.approx(0.5 / 2**0.5)
    assert found["base"]["pooled"]["value"] == 0.25
    against = found["new"]["against_baseline"]
    assert against["paired_seeds"] == 2
    assert sorted(against["by_seed"]["values"]) == [0.25, 0.25]  # 0.25 − 0 and 0.75 − 0.5
    assert against["by_seed"]["sd"] == 0.0
    assert (against["images_better"], against["images_worse"]) == (2, 0)
    assert found["new"]["seconds"]["training_s"] == 11.5


def test_seconds_count_scoring_and_its_calibration(tmp_path: Path) -> None:
    full = write_evaluation(tmp_path / "full", [YES, NO], "aa", note={"seconds": 100.0, "seed": 0})
    fifth = write_evaluation(tmp_path / "fifth", [YES, NO], "aa", note={"seconds": 20.0, "seed": 0})
    unknown = write_evaluation(tmp_path / "unknown", [YES, NO], "aa")
    run = write_scoring(tmp_path / "run", seconds=3.0, calibration_s=2.0)
    runs = [("full", full), ("fifth", fifth), ("unknown", unknown)]
    methods = compare_evaluations(runs, {"fifth": run})["methods"]
    assert methods["fifth"]["seconds"] == {"training_s": 20.0, "scoring_s": 5.0, "total_s": 25.0, "speedup": 4.0}
    assert methods["full"]["seconds"]["speedup"] == 1.0
    assert methods["unknown"]["seconds"]["total_s"] is None
    assert methods["unknown"]["seconds"]["speedup"] is None


def write_scoring(path: Path, seconds: float, calibration_s: float) -> Path:
    manifest = Manifest(
        model="m",
        model_fingerprint="f",
        settings={},
        data="d",
        images="",
        input=Fingerprint("b" * 64, 1),
        format="llava",
        n_rows=1,
        unit_rows=1,
        versions={},
    )
    with RunFolder.start(path, manifest) as run:
        run.write_unit(0, [SampleScore(row=0, id="", key="", source="", status="failed", reason="bad")])
        run.add_pace(1, seconds)
        run.mark_complete()
    (path / "calibration.json").write_text(json.dumps({"seconds": calibration_s}))
    return path


def test_other_test_files_and_other_questions_are_refused(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "one", [YES], "a")
    other = write_evaluation(tmp_path / "other", [YES], "a", sha256="b" * 64)
    with pytest.raises(ArtifactError, match=r"test file \(SHA-256\): aaaaaaaaaaaaaaaa and bbbbbbbbbbbbbbbb"):
        compare_evaluations([("one", one), ("other", other)])
    cut = write_evaluation(tmp_path / "cut", [YES], "a", max_new_tokens_given=4)
    with pytest.raises(ArtifactError, match="max_new_tokens_given: None and 4"):
        compare_evaluations([("one", one), ("cut", cut)])
    with pytest.raises(SettingsError, match="at least two"):
        compare_evaluations([("one", one)])
    with pytest.raises(ArtifactError, match="holds no evaluation"):
        compare_evaluations([("one", one), ("none", tmp_path)])
    with pytest.raises(SettingsError, match="no such name"):
        compare_evaluations([("one", one), ("two", one)], {"three": one})
    with pytest.raises(SettingsError, match="baseline='x'"):
        compare_evaluations([("one", one), ("two", one)], baseline="x")


def test_nothing_in_common(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "one", [YES, None], "aa")
    two = write_evaluation(tmp_path / "two", [None, YES], "aa")
    with pytest.raises(ArtifactError, match="no answer in common"):
        compare_evaluations([("one", one), ("two", two)])


def test_a_broken_training_note_is_told(tmp_path: Path) -> None:
    one = write_evaluation(tmp_path / "one", [YES], "a")
    (tmp_path / "one-model" / "train.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"train\.json can't be read"):
        compare_evaluations([("one", one), ("two", one)])


def test_the_command_writes_the_same_figures_as_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_evaluation(tmp_path / "one", [YES, NO, NO], "aab")
    two = write_evaluation(tmp_path / "two", [YES, YES, NO], "aab")
    written = tmp_path / "out.json"
    compare(f"old={one}", f"newer={two}", str(two), baseline="old", json_file=written)
    found = json.loads(written.read_text())
    assert list(found["methods"]) == ["old", "newer", str(two)]
    assert found["baseline"] == "old"
    printed = capsys.readouterr().out
    assert "method: newer" in printed
    assert "+25.0% (" in printed  # a rises by a half, b by nothing
    with pytest.raises(SettingsError, match="NAME=FOLDER"):
        compare(str(one), "=two")

"""The choice on a made-up scorer whose settings see known kinds of defects."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random

import pytest

from delta_attnmask.calibrating.calibrator import calibrate
from delta_attnmask.calibrating.scored import Outcome, Score
from delta_attnmask.calibration import Calibration, Verdict, judge_calibration
from delta_attnmask.errors import DataError, TooLittleDataError
from delta_attnmask.records import Record
from delta_attnmask.scores import SampleScore
from delta_attnmask.settings import MaskSettings
from tests.calibrating.test_defects import make_records

GOOD = MaskSettings(queries="answer", block=-2)
DEEP = MaskSettings(queries="answer", block=-4)
BLIND = MaskSettings(queries="all", fraction=0.4, block=-2)
CONTROL = MaskSettings(queries="all", order="random", block=-2)
GRID = [BLIND, DEEP, GOOD, CONTROL]


def run(records: list[Record], sees_images: bool = True, seed: int = 0) -> Calibration:
    answers = {record.images[0]: record.turns[1].text for record in records}

    def score(records: Sequence[Record]) -> Iterator[Outcome]:
        rng = Random(seed)
        scores, sweep = [], {}
        for record in records:
            image = record.images[0]
            looked_up = answers[image] if sees_images and not image.is_blank else None
            is_right = record.turns[1].text == looked_up
            loss = 1.0 + rng.gauss(0, 0.05)
            seeing = 1.0 * is_right + rng.gauss(0, 0.2)
            sweep[record.row] = [loss + rng.gauss(0, 1), loss + seeing, loss + seeing, loss + rng.gauss(0, 1)]
            scores.append(_scored(record, loss))
        yield scores, sweep

    return Calibration(calibrate(records, score, GRID, n_rows=120, seed=seed))


def _scored(record: Record, loss: float) -> SampleScore:
    return SampleScore(
        row=record.row, id="", key=record.key, source=record.source, status="ok", n_answer_tokens=3, loss=loss,
        extra={"el2n": loss},
    )  # fmt: skip


def test_the_setting_that_sees_is_chosen_and_the_cheaper_of_two_equal_ones() -> None:
    found = run(make_records(200))
    assert found.settings == GOOD
    assert found.report["chosen"]["mean"] > 0.9
    assert found.report["chosen"]["copies_kept"] < 0.2
    assert "image_swapped" in found.report["visible_kinds"]
    assert not any("swapped image" in warning for warning in found.report["warnings"])


def test_a_model_that_does_not_look_is_told_so() -> None:
    found = run(make_records(200), sees_images=False)
    assert "image_swapped" not in found.report["visible_kinds"]
    assert any("swapped image" in warning for warning in found.report["warnings"])


@pytest.mark.parametrize("sees_images", [True, False])
def test_what_is_seen_its_interval_and_the_warnings_are_of_the_same_pairs(sees_images: bool) -> None:
    found = run(make_records(200), sees_images=sees_images)
    kinds = found.report["kinds"]
    unseen = {kind for kind, one in kinds.items() if not one["chosen"]["low"] > 0.55}
    assert set(found.report["visible_kinds"]) == kinds.keys() - unseen
    lines = found.describe().splitlines()
    assert {line.split()[0] for line in lines if line.endswith("  not seen")} == unseen
    warned = {
        kind for kind in kinds for line in found.warnings if kind in line.replace("swapped image", "image_swapped")
    }
    assert warned == unseen


def test_controls_and_rivals_are_reported_but_never_chosen() -> None:
    found = run(make_records(200))
    names = {(entry["form"], entry["is_control"]) for entry in found.report["candidates"]}
    assert ("el2n", False) in names
    assert ("low_loss", False) in names
    assert ("relative_delta", True) in names
    assert not found.candidate.is_control


def test_the_verdict_says_whether_selecting_is_better_than_chance() -> None:
    found = run(make_records(200))
    assert found.verdict == Verdict.SELECT
    assert found.verdict_sentence.startswith("selecting pays here: a kept fifth has 0.")
    assert found.verdict_sentence.endswith("masking adds to it")
    assert found.describe().endswith(f"verdict: {found.verdict_sentence}")
    blind = run(make_records(200), sees_images=False)
    assert blind.verdict == Verdict.KEEP_ALL
    assert "no better than random rows" in blind.describe()
    good = dict(blind.report) | {"chosen": {"copies_kept": 0.3, "standard_error": 0.1}}
    assert Calibration(good).verdict == Verdict.BLIND
    assert "can't see wrong images (best AUROC 0." in Calibration(good).verdict_sentence
    assert Calibration(good | {"kinds": {}}).verdict == Verdict.LOW_LOSS
    assert [verdict for verdict in Verdict if verdict.is_no] == [Verdict.KEEP_ALL]
    assert judge_calibration(None)["verdict"] == Verdict.TOO_FEW


def test_where_masking_adds_nothing_low_loss_is_taken_and_nothing_is_masked() -> None:
    found = run(make_records(200), sees_images=False)
    assert (found.form, found.settings.fraction, found.judge) == ("low_loss", 0, None)
    assert [way["name"] for way in found.report["ways"]] == ["low_loss", "delta"]
    assert all(0.4 < way["copies_kept"] < 1.6 for way in found.report["ways"])  # chance


def test_calibration_repeats() -> None:
    first, second = run(make_records(200)).report, run(make_records(200)).report
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_too_little_data_is_said() -> None:
    with pytest.raises(TooLittleDataError, match="too few to calibrate"):
        run(make_records(30))


def failing(is_failed: Callable[[Record], bool]) -> Score:
    """Scores nothing but noise, and fails where it is told to."""

    def score(records: Sequence[Record]) -> Iterator[Outcome]:
        rng = Random(0)
        failed = {record.row for record in records if is_failed(record)}
        fault = {"status": "failed", "reason": "no such file", "reason_code": "image_missing"}
        scores = [
            SampleScore(row=record.row, id="", key="", source="", **fault)
            if record.row in failed
            else _scored(record, rng.random())
            for record in records
        ]
        yield scores, {record.row: [rng.random() for _ in GRID] for record in records if record.row not in failed}

    return score


def test_kinds_with_too_few_pairs_are_said() -> None:
    report = calibrate(make_records(200), failing(lambda record: record.images[0].is_blank), GRID, n_rows=120)
    assert "image_blank" not in report["kinds"]
    assert "too few pairs could be scored to tell whether these defects are seen: image_blank" in report["warnings"]


def test_where_every_row_fails_the_first_reason_is_told() -> None:
    records = [replace(record, row=record.row + 7) for record in make_records(80)]
    with pytest.raises(DataError, match=r"none of the 80 rows .* row 7: no such file; .* --images") as caught:
        calibrate(records, failing(lambda record: True), GRID)
    assert not isinstance(caught.value, TooLittleDataError)
    with pytest.raises(DataError, match=r"none of the 80 rows .* row 7: unreadable") as caught:
        calibrate(
            [replace(record, reason="unreadable", reason_code="image_unreadable") for record in records],
            failing(lambda record: False),
            GRID,
        )
    assert not isinstance(caught.value, TooLittleDataError)


def test_where_most_rows_fail_the_rest_is_too_little() -> None:
    records = make_records(200)
    with pytest.raises(TooLittleDataError, match=r"only \d+ of the 200 rows .* can be scored.*no such file"):
        calibrate(records, failing(lambda record: record.row % 4 > 0), GRID)


def test_a_few_rows_without_an_image_do_not_hide_that_the_images_are_missing() -> None:
    records = [replace(record, images=()) if record.row < 70 else record for record in make_records(200)]
    with pytest.raises(DataError, match="none of the 130 rows with an image") as caught:
        calibrate(records, failing(lambda record: bool(record.images)), GRID)
    assert not isinstance(caught.value, TooLittleDataError)


def test_a_kind_of_which_every_copy_fails_is_left_out() -> None:
    report = calibrate(make_records(200), failing(lambda record: record.images[0].is_blank), GRID)
    assert "image_blank" not in report["kinds"]
    assert "image_swapped" in report["kinds"]

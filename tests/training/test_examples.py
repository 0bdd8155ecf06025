"""Batches of an epoch, folders and metrics, plans: what needs no model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delta_attnmask import ArtifactError, MaskSettings, SettingsError
from delta_attnmask.training.examples import key_number, top_positions
from delta_attnmask.training.folder import MetricsFile, TrainingFolder, TrainingNote
from delta_attnmask.training.plan import LoraSettings, TrainingPlan
from delta_attnmask.training.trainer import GroupedBatches

KINDS = np.array([0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0])


def test_every_example_comes_once_with_its_like() -> None:
    batches = GroupedBatches(KINDS, 3, seed=0)
    epochs = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
        assert sorted(index for batch in epochs[-1] for index in batch) == list(range(len(KINDS)))
        assert all(len(set(KINDS[batch])) == 1 for batch in epochs[-1])
        assert sorted(map(len, epochs[-1])) == [2, 3, 3, 3]
        assert len(batches) == 4
    assert epochs[0] != epochs[1]
    assert list(GroupedBatches(KINDS, 3, seed=0)) == epochs[0]
    assert list(GroupedBatches(KINDS, 3, seed=1)) != epochs[0]


def test_the_top_share_of_those_that_have_a_value() -> None:
    values = np.array([0.1, np.nan, 0.3, 0.2, np.inf, 0.0])
    assert top_positions(values, 0.5).tolist() == [2, 3]
    assert top_positions(values, 1.0).tolist() == [0, 2, 3, 5]
    assert top_positions(values, 0.01).tolist() == [2]
    with pytest.raises(SettingsError, match="top_share"):
        top_positions(values, 0.0)
    assert key_number("f" * 64) == 2**60 - 1


def test_metrics_resume_after_the_step_and_know_their_seconds(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path, 0)
    for step in range(1, 5):
        file.add({"step": step, "seconds": 10.0 * step})
    with path.open("a") as torn:
        torn.write('{"step": 5, "sec')
    again = MetricsFile(path, 2)
    assert again.seconds == 20.0
    assert path.read_text().splitlines() == ['{"step": 1, "seconds": 10.0}', '{"step": 2, "seconds": 20.0}']


def test_checkpoints_that_are_not_whole_are_passed_over(tmp_path: Path) -> None:
    with TrainingFolder.start(tmp_path / "out", TrainingNote({"identity": {"seed": 0}})) as folder:
        assert folder.last_checkpoint() is None
        for step in (2, 10, 9):
            (folder.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
        (folder.checkpoints / "checkpoint-9/trainer_state.json").write_text("{}")
        assert folder.last_checkpoint() == folder.checkpoints / "checkpoint-9"
        assert not (folder.checkpoints / "checkpoint-10").exists()
        with (
            pytest.raises(ArtifactError, match="in use"),
            TrainingFolder.start(tmp_path / "out", TrainingNote({"identity": {"seed": 0}})),
        ):
            pass
    (tmp_path / "out/train.json").write_text("[]")
    with pytest.raises(ArtifactError, match="expected an object"):
        TrainingFolder.open(tmp_path / "out")
    with (
        pytest.raises(ArtifactError, match="needs a folder on this machine"),
        TrainingFolder.start("memory://out", TrainingNote({})),
    ):
        pass


@pytest.mark.parametrize(
    ("augment", "form", "order", "probability"),
    [
        ("masked", "mask", "most", 0.3),
        ("random", "mask", "random", 0.3),
        ("dropout", "dropout", "most", 0.3),
        ("twice", "mask", "most", 1.0),
        ("twice-random", "mask", "random", 1.0),
        ("twice-dropout", "dropout", "most", 1.0),
    ],
)
def test_what_each_augmentation_does(augment: Any, form: str, order: str, probability: float) -> None:
    plan = TrainingPlan(
        augment=augment, mask=MaskSettings(queries="all", fraction=0.3, block=-2), probability=0.3, seed=5
    )
    settings = plan.augmentation
    assert settings is not None
    assert (settings.form, settings.mask.order, settings.probability) == (form, order, probability)
    assert (settings.mask.fraction, settings.seed) == (0.3, 5)
    assert plan.is_twice == augment.startswith("twice")


@pytest.mark.parametrize("augment", ["none", "neftune", "twice-plain"])
def test_augmentations_that_change_no_states(augment: Any) -> None:
    assert TrainingPlan(augment=augment).augmentation is None


@pytest.mark.parametrize(
    "wrong",
    [{"augment": "mask"}, {"batch_size": 0}, {"warmup": 1.0}, {"max_steps": 0}, {"learning_rate": 0}],
    ids=str,
)
def test_plans_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        TrainingPlan(**wrong)
    with pytest.raises(SettingsError, match="rank"):
        LoraSettings(rank=0)

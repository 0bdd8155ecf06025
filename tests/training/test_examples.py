"""Batches of an epoch, folders, plans: what needs no model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delta_attnmask import ArtifactError, AugmentationSettings, MaskSettings, SettingsError
from delta_attnmask.manifest import Manifest
from delta_attnmask.records import Fingerprint
from delta_attnmask.training.examples import key_number, top_positions
from delta_attnmask.training.folder import TrainingFolder
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


def test_checkpoints_that_are_not_whole_are_passed_over(tmp_path: Path) -> None:
    manifest = make_manifest(learning_rate=1e-3)
    with TrainingFolder.start(tmp_path / "out", manifest) as folder:
        assert folder.last_checkpoint() is None
        for step in (2, 10, 9):
            (folder.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
        (folder.checkpoints / "checkpoint-9/trainer_state.json").write_text("{}")
        assert folder.last_checkpoint() == folder.checkpoints / "checkpoint-9"
        assert not (folder.checkpoints / "checkpoint-10").exists()
        with pytest.raises(ArtifactError, match="in use"), TrainingFolder.start(tmp_path / "out", manifest):
            pass
    with pytest.raises(ArtifactError, match="of a run"), TrainingFolder.start(tmp_path / "run", make_manifest()):
        pass
    with (
        pytest.raises(ArtifactError, match="needs a folder on this machine"),
        TrainingFolder.start("memory://out", manifest),
    ):
        pass


def make_manifest(**settings: Any) -> Manifest:
    return Manifest(
        model="m",
        model_fingerprint="f",
        settings=settings,
        data="d",
        images="",
        input=Fingerprint("b" * 64, 1),
        format="llava",
        n_rows=1,
        unit_rows=1,
    )


def test_what_each_augmentation_does() -> None:
    plan = TrainingPlan(augment="masked", mask=MaskSettings(order="random", fraction=0.3), probability=0.3, seed=5)
    assert plan.augmentation == AugmentationSettings(mask=plan.mask, probability=0.3, seed=5)
    twice = replace(plan, augment="twice").augmentation
    assert twice == AugmentationSettings(mask=plan.mask, probability=1.0, seed=5)  # its copies are always masked
    assert replace(plan, augment="none").augmentation is None


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

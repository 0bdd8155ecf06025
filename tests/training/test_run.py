"""`train_dataset` on the embedded model: what it writes, how it resumes, adapters, augmentation."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor
from trl.trainer.sft_config import SFTConfig

from delta_attnmask import ArtifactError, DataError, DeltaAttnMaskError, MaskSettings, SettingsError
from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.modeling.anatomy import examine
from delta_attnmask.modeling.load import LoadedModel, load_model
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.scoring.delta import loss_batch
from delta_attnmask.scoring.jobs import score_dataset
from delta_attnmask.scoring.units import ScoringPlan
from delta_attnmask.training.examples import choose_examples
from delta_attnmask.training.finetuning import Outcome, freeze_all_but_language, train_dataset
from delta_attnmask.training.folder import ROWS_SCHEMA, TrainingFolder
from delta_attnmask.training.plan import LoraSettings, TrainingPlan
from delta_attnmask.training.trainer import ExampleCollator, GroupedBatches, training_arguments
from tests.hooks import hooks_of

PLAN = TrainingPlan(batch_size=4, learning_rate=1e-3, warmup=0.0, log_steps=1, max_steps=2)  # an epoch has three
MASK = MaskSettings(block=-3)


@pytest.fixture(scope="module")
def dataset(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> FileRows:
    """Nine good rows, one of them without an image, and two bad ones."""
    rows = json.loads((embedded / "pool.json").read_text(encoding="utf-8"))
    good = [row for row in rows if "image" in row][:8] + [row for row in rows if "image" not in row][:1]
    lost = {**good[0], "id": "lost", "image": "no/such.png"}
    path = tmp_path_factory.mktemp("data") / "subset.json"
    path.write_text(json.dumps([*good, lost, {"id": "empty", "conversations": []}]), encoding="utf-8")
    return FileRows(path, embedded / "images")


@pytest.fixture
def load(tiny_model: Path) -> Callable[[], LoadedModel]:
    return lambda: load_model(str(tiny_model), dtype="float32", device="cpu")


def weights(path: Path) -> dict[str, Tensor]:
    return dict(load_model(str(path), dtype="float32", device="cpu").model.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 0.0) -> bool:
    assert one.keys() == other.keys()
    return all(bool((one[name] - other[name]).abs().max() <= tolerance) for name in one)


def metrics(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def rows_of(path: Path) -> pa.Table:
    table = TrainingFolder.open(path).read_rows()
    assert table is not None
    return table


def losses(path: Path) -> list[float]:
    return [line["loss"] for line in metrics(path) if "loss" in line]


train = partial(train_dataset, max_failed=0.2)  # two of eleven rows are bad


@pytest.fixture(scope="module")
def plain(tiny_model: Path, dataset: FileRows, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A training without augmentation."""
    loaded = load_model(str(tiny_model), dtype="float32", device="cpu")
    return train(loaded, dataset, tmp_path_factory.mktemp("plain") / "out", PLAN)


def test_what_a_training_leaves(plain: Outcome, tiny_model: Path) -> None:
    about = json.loads((plain.path / "train.json").read_text())
    assert (about["n_rows"], about["n_skipped"], about["n_steps"], about["seed"]) == (9, 2, 2, 0)
    assert about["augment"] == "none"
    assert about["seconds"] > 0
    assert about["versions"]["trl"]
    assert about["loss"] == losses(plain.path)[-1]
    assert sum(about["skipped"].values()) == 2
    table = rows_of(plain.path)
    assert table.schema == ROWS_SCHEMA
    assert table["status"].to_pylist() == ["ok"] * 9 + ["skipped"] * 2
    assert table["id"].to_pylist()[9:] == ["lost", "empty"]
    assert "no/such.png" in table["reason"][9].as_py()
    assert [line["step"] for line in metrics(plain.path) if "loss" in line] == [1, 2]
    assert not (plain.path / "checkpoints").exists()
    assert not same(weights(plain.path), weights(tiny_model))


def test_the_same_call_has_nothing_to_do(plain: Outcome, dataset: FileRows, load: Callable[[], LoadedModel]) -> None:
    again = train(load(), dataset, plain.path, PLAN)
    assert not again.is_new
    assert again.about == plain.about


def test_a_folder_of_another_training_is_refused(
    plain: Outcome, dataset: FileRows, load: Callable[[], LoadedModel], tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"settings\.seed: 0 there, 1 now"):
        train(load(), dataset, plain.path, replace(PLAN, seed=1))
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"thesis\.txt"):
        train(load(), dataset, tmp_path, PLAN)


def test_the_loss_is_that_of_the_tokens_that_scoring_counts(
    plain: Outcome, dataset: FileRows, load: Callable[[], LoadedModel]
) -> None:
    """The first step's loss is that of the untrained model: scoring's losses, weighted by their answer tokens."""
    loaded = load()
    examples = choose_examples(rows_of(plain.path), PLAN)
    first = next(iter(GroupedBatches(examples["kind"].to_numpy(), PLAN.batch_size, PLAN.seed)))
    collator = ExampleCollator(dataset, make_encoder(loaded), torch.float32, marks=False)
    batch = collator(examples.take(first).to_pylist())
    labels = batch.pop("labels")
    n_tokens = (labels[:, 1:] != -100).sum(-1)
    expected = (loss_batch(loaded.model, batch, labels) * n_tokens).sum() / n_tokens.sum()
    assert losses(plain.path)[0] == pytest.approx(float(expected), abs=1e-4)


def test_labels_are_those_of_trl_but_for_what_follows_the_end_of_turn(
    dataset: FileRows, load: Callable[[], LoadedModel]
) -> None:
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    loaded = load()
    (record,) = dataset.records(0, 1)
    assert len(record.turns) == 2
    image = dataset.load_image(record.images[0])
    ours = ExampleCollator(dataset, make_encoder(loaded), torch.float32, marks=False)([{"row": 0}])
    question = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in record.turns[0].parts]
    row = {
        "images": [image],
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": record.turns[1].text}]}],
    }
    trl = DataCollatorForVisionLanguageModeling(loaded.processor, max_length=None, completion_only_loss=True)([row])
    assert torch.equal(ours["input_ids"], trl["input_ids"])
    assert torch.equal(ours["pixel_values"], trl["pixel_values"])
    is_ours, is_trl = ours["labels"][0] != -100, trl["labels"][0] != -100
    assert torch.equal(ours["labels"][0, is_ours], trl["labels"][0, is_ours])
    extra = loaded.processor.tokenizer.decode(trl["labels"][0, is_trl & ~is_ours])
    assert extra.strip() == ""
    assert bool((is_trl | ~is_ours).all())


class Killed(BaseException):
    """As if the process ended."""


def test_a_killed_training_goes_on_as_if_nothing_had_been(
    dataset: FileRows, load: Callable[[], LoadedModel], tmp_path: Path
) -> None:
    plan = replace(PLAN, augment="masked", mask=replace(MASK, order="random"), max_steps=4, save_steps=2)
    whole = train(load(), dataset, tmp_path / "whole", plan)

    def kill(what: str, n_done: int, n_rows: int, n_skipped: int) -> None:
        if what == "training" and n_done >= n_rows * 3 // 4:
            raise Killed

    with pytest.raises(Killed):
        train(load(), dataset, tmp_path / "cut", plan, on_progress=kill)
    assert not (tmp_path / "cut/model.safetensors").exists()
    half_written = tmp_path / "cut/checkpoints/checkpoint-3"
    half_written.mkdir()
    (half_written / "model.safetensors").write_bytes(b"half")
    done: set[str] = set()
    oftener = replace(plan, save_steps=1)  # as one wants it after a kill
    rest = train(load(), dataset, tmp_path / "cut", oftener, on_progress=lambda what, *_: done.add(what))
    assert done == {"training"}  # rows aren't read twice to see whether they can be used
    assert same(weights(whole.path), weights(rest.path))
    assert losses(rest.path) == pytest.approx(losses(whole.path))
    assert rest.about["n_steps"] == 4
    steps = [line["step"] for line in metrics(rest.path)]
    assert steps == [1, 2, 3, 4, 4]  # the last line is the training's own
    seconds = [line["seconds"] for line in metrics(rest.path)]
    assert seconds == sorted(seconds)
    assert rest.about["seconds"] == seconds[-1]


def test_a_training_killed_before_its_model_was_saved_makes_no_step_more(
    plain: Outcome, dataset: FileRows, load: Callable[[], LoadedModel], tmp_path: Path
) -> None:
    def kill(what: str, *_: int) -> None:
        if what == "training":
            raise Killed

    with pytest.raises(Killed):
        train(load(), dataset, tmp_path / "cut", PLAN, on_progress=kill)
    in_the_way = tmp_path / "cut/model.safetensors"
    in_the_way.mkdir()
    with pytest.raises(Exception, match="Is a directory"):
        train(load(), dataset, tmp_path / "cut", PLAN)
    in_the_way.rmdir()
    rest = train(load(), dataset, tmp_path / "cut", PLAN)
    assert rest.about["n_steps"] == 2
    assert rest.about["loss"] == plain.about["loss"]
    assert same(weights(rest.path), weights(plain.path))


def test_adapters_alone_and_merged(dataset: FileRows, load: Callable[[], LoadedModel], tmp_path: Path) -> None:
    plan = replace(PLAN, lora=LoraSettings(rank=4, alpha=8), augment="masked", probability=1.0)
    alone = train(replace(load(), revision="v1"), dataset, tmp_path / "alone", plan)
    merged = train(load(), dataset, tmp_path / "merged", plan, merge=True)
    assert (alone.path / "adapter_config.json").exists()
    assert not (alone.path / "model.safetensors").exists()
    adapter = json.loads((alone.path / "adapter_config.json").read_text())
    assert Path(adapter["base_model_name_or_path"]).is_absolute()
    assert adapter["revision"] == "v1"
    assert alone.about["n_masked"] == 8

    encoder = make_encoder(load())
    batch = ExampleCollator(dataset, encoder, torch.float32, marks=False)([{"row": 0}, {"row": 1}])
    labels = batch.pop("labels")
    scores = [
        loss_batch(load_model(str(path), dtype="float32", device="cpu").model, batch, labels)
        for path in (alone.path, merged.path)
    ]
    assert torch.allclose(scores[0], scores[1], atol=1e-4)
    assert not torch.allclose(scores[0], loss_batch(load().model, batch, labels), atol=1e-4)


def test_checkpointing_and_accumulation_give_the_same_losses(
    dataset: FileRows, load: Callable[[], LoadedModel], tmp_path: Path
) -> None:
    lora = LoraSettings(rank=4, alpha=8)
    plan = replace(PLAN, lora=lora, augment="masked", probability=0.5, mask=MASK, accumulate=2, batch_size=2)
    expected = train(load(), dataset, tmp_path / "plain", plan)
    loaded = load()
    found = train(loaded, dataset, tmp_path / "saved", replace(plan, gradient_checkpointing=True))
    assert losses(found.path) == pytest.approx(losses(expected.path), rel=1e-4)
    assert found.about["n_masked"] == expected.about["n_masked"] > 0
    assert load_model(str(found.path), device="cpu").model.config.get_text_config().use_cache


def test_only_the_language_model_is_trained(load: Callable[[], LoadedModel]) -> None:
    anatomy = examine(load().model)
    freeze_all_but_language(anatomy)
    trained = {name for name, weight in anatomy.model.named_parameters() if weight.requires_grad}
    assert trained == {
        name for name, _ in anatomy.model.named_parameters() if name.startswith((anatomy.decoder_path, "lm_head"))
    }
    assert 0 < len(trained) < len(list(anatomy.model.parameters()))


def test_masking_changes_the_training(
    plain: Outcome, dataset: FileRows, load: Callable[[], LoadedModel], tmp_path: Path
) -> None:
    plan = replace(PLAN, augment="masked", probability=1.0, mask=MASK)
    loaded = load()
    done = train(loaded, dataset, tmp_path / "out", plan)
    assert losses(done.path)[0] != pytest.approx(losses(plain.path)[0], abs=1e-5)
    assert done.about["augment"] == "masked"
    shares = [line["masked_share"] for line in metrics(done.path) if "loss" in line]
    assert shares == [1.0, 1.0]
    assert all("vision_tower" in name for name in hooks_of(loaded.model))  # there transformers has some of its own


def test_top_rows_come_twice_plain_and_masked(
    dataset: FileRows, load: Callable[[], LoadedModel], tmp_path: Path
) -> None:
    scored = score_dataset(load(), dataset, tmp_path / "run", ScoringPlan(MASK, form="low_loss"))
    plan = replace(PLAN, augment="twice", mask=MASK, from_scores=scored.path, top_share=0.5, max_steps=None)
    done = train(load(), dataset, tmp_path / "twice", plan)
    assert (done.about["n_rows"], done.about["n_examples"], done.about["n_masked"]) == (9, 13, 4)
    table = rows_of(done.path)
    examples = choose_examples(table, plan)
    losses_of = scored.read_scores(["loss"])["loss"].to_pylist()
    lowest = sorted(range(9), key=lambda row: losses_of[row])[:4]
    assert examples["row"].to_pylist() == [*range(9), *sorted(lowest)]
    assert examples["is_allowed"].to_pylist() == [False] * 9 + [True] * 4
    once = choose_examples(table, replace(plan, augment="masked"))
    assert once["is_allowed"].to_pylist() == [row in lowest for row in range(9)]


def test_what_cannot_be_trained_on(load: Callable[[], LoadedModel], dataset: FileRows, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row can be trained on; 9 like this"):
        train(load(), dataset, tmp_path / "a", replace(PLAN, max_tokens=5))
    with pytest.raises(SettingsError, match="top_share"):
        replace(PLAN, top_share=0.5)
    with pytest.raises(SettingsError, match=r"epochs=0.*learning_rate=-1"):
        replace(PLAN, epochs=0, learning_rate=-1)
    with pytest.raises(SettingsError, match=r"weight_decay=-1.*probability=1.5.*seed=-1"):
        replace(PLAN, weight_decay=-1, seed=-1, probability=1.5)


@pytest.mark.parametrize(
    ("changes", "reason"), [({"mask": MaskSettings(block=40)}, "block"), ({"by": "nonsense"}, "nonsense")]
)
def test_what_does_not_fit_is_told_before_anything_is_read(
    changes: dict[str, Any], reason: str, load: Callable[[], LoadedModel], dataset: FileRows, tmp_path: Path
) -> None:
    scored = score_dataset(load(), dataset, tmp_path / "run", ScoringPlan(MASK))
    plan = replace(PLAN, augment="masked", mask=MASK, from_scores=scored.path)
    with pytest.raises(SettingsError, match=reason):
        train(load(), dataset, tmp_path / "out", replace(plan, **changes))
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_ends_the_training_without_a_model(
    load: Callable[[], LoadedModel], dataset: FileRows, tmp_path: Path
) -> None:
    plan = replace(PLAN, learning_rate=1e38, max_steps=3, log_steps=10)  # no step has a line of its own
    with pytest.raises(DeltaAttnMaskError, match="not finite at step 3"):
        train(load(), dataset, tmp_path / "out", plan)
    assert not (tmp_path / "out/model.safetensors").exists()
    assert "NaN" not in (tmp_path / "out/metrics.jsonl").read_text()


def test_of_several_gpus_one_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SFTConfig, "n_gpu", property(lambda config: config._n_gpu or 4))  # 0 is what it found here
    config = training_arguments(PLAN, tmp_path, torch.device("cpu"))
    assert config.n_gpu == 1

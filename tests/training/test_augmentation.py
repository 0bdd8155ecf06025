"""`MaskedStateAugmentation` in the plain Trainer and in TRL's, with adapters, and what it leaves."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AttentionInterface, Trainer, TrainerCallback, TrainingArguments

from delta_attnmask import MaskedStateAugmentation, MaskSettings
from tests.families import FAMILIES
from tests.hooks import hooks_of

MASK = MaskSettings(block=-3)


def build() -> nn.Module:
    return FAMILIES["Llama"].build()


def rows(n_rows: int = 8) -> list[dict[str, Any]]:
    """Rows of the same length, each with its key."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(16, 128, (n_rows, 12), generator=generator)
    return [{"input_ids": row.tolist(), "labels": row.tolist(), "masking_keys": n} for n, row in enumerate(ids)]


def stack(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.tensor([example[name] for example in examples]) for name in examples[0]}


def stack_plain(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Only what a model takes."""
    return {name: values for name, values in stack(examples).items() if not name.startswith("masking")}


class Losses(TrainerCallback):
    def __init__(self) -> None:
        self.values: list[float] = []
        self.shares: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:
            self.values.append(kwargs["logs"]["loss"])
            self.shares.append(kwargs["logs"].get("masked_share", 0.0))


def make_trainer(tmp_path: Path, model: nn.Module, callbacks: list[TrainerCallback], **options: Any) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=4,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        **options,
    )
    data: Any = rows()
    return Trainer(model, arguments, stack, data, eval_dataset=data, callbacks=callbacks)


def train(tmp_path: Path, augmentation: MaskedStateAugmentation | None, model: nn.Module, **options: Any) -> Losses:
    losses = Losses()
    callbacks: list[TrainerCallback] = [*([augmentation] if augmentation else []), losses]
    trainer = make_trainer(tmp_path, model, callbacks, **options)
    if augmentation is None:
        trainer.data_collator = stack_plain
    trainer.train()
    return losses


def left_on(model: nn.Module) -> list[str]:
    """The modules with hooks, but for the embedding, where the Trainer leaves one for checkpointing."""
    return [name for name in hooks_of(model) if not name.endswith("embed_tokens")]


def test_the_trainer_trains_masked_and_keeps_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, table = build(), dict(AttentionInterface())
    plain = train(tmp_path, None, build())
    masked = train(tmp_path, MaskedStateAugmentation(MASK, probability=1.0), model)
    assert masked.shares == [1.0] * 4
    assert all(abs(a - b) > 1e-4 for a, b in zip(plain.values, masked.values, strict=True))
    assert not left_on(model)
    assert dict(AttentionInterface()) == table


def test_evaluation_within_a_training_is_untouched(tmp_path: Path) -> None:
    class Evaluating(TrainerCallback):
        seen: tuple[float, float] | None = None
        trainer: Trainer

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                assert left_on(kwargs["model"])
                found = self.trainer.evaluate()["eval_loss"]
                model = kwargs["model"].eval()
                with torch.no_grad():
                    losses = [float(model(**stack_plain([row])).loss) for row in rows()]
                self.seen = found, sum(losses) / len(losses)

    evaluating = Evaluating()
    trainer = make_trainer(tmp_path, build(), [MaskedStateAugmentation(MASK, probability=1.0), evaluating])
    evaluating.trainer = trainer
    trainer.train()
    assert evaluating.seen is not None
    assert evaluating.seen[0] == pytest.approx(evaluating.seen[1], abs=1e-4)


class Broken(Exception):
    pass


def test_an_exception_leaves_nothing_in_the_context_manager(tmp_path: Path) -> None:
    class Breaking(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise Broken

    model = build()
    augmentation = MaskedStateAugmentation(MASK)
    trainer = make_trainer(tmp_path, model, [augmentation, Breaking()])
    with pytest.raises(Broken), augmentation:
        trainer.train()
    assert not left_on(model)
    with pytest.raises(Broken):
        trainer.train()
    assert left_on(model)  # without it the hooks stay, until the next training or `detach`
    augmentation.detach()
    assert not left_on(model)


def checkpointing(reentrant: bool) -> dict[str, Any]:
    """The Trainer's options, under the names of this version of transformers."""
    names = {field.name for field in fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": reentrant}}


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("is_lora", [False, True], ids=["full", "lora"])
def test_adapters_checkpointing_and_accumulation(is_lora: bool, tmp_path: Path) -> None:
    losses = []
    for reentrant in (None, False, True):
        options: dict[str, Any] = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.0}
        if reentrant is not None:
            options |= checkpointing(reentrant)
        torch.manual_seed(0)
        model: Any = build()
        if is_lora:
            model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        found = train(tmp_path, MaskedStateAugmentation(MASK, probability=0.5), model, **options)
        assert 0 < sum(found.shares) < len(found.shares)
        assert not left_on(model)
        losses.append(found.values)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=1e-5)


def test_only_the_rows_that_a_batch_allows_are_masked(tmp_path: Path) -> None:
    losses = Losses()
    trainer = make_trainer(tmp_path, build(), [MaskedStateAugmentation(MASK, probability=1.0), losses])
    trainer.train_dataset = [row | {"masking_allowed": n < 2} for n, row in enumerate(rows())]  # type: ignore[assignment]
    trainer.train()
    assert sum(losses.shares) * 2 == 2

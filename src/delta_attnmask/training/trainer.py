"""TRL's `SFTTrainer` on our own batches, and the callbacks that write metrics and tell progress."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from delta_attnmask.errors import DeltaAttnMaskError
from delta_attnmask.training.examples import ExampleCollator, Examples, GroupedBatches
from delta_attnmask.training.folder import MetricsFile

OnStep = Callable[[int, int], None]  # rows done, rows in all; a row counts as often as it comes


class ExampleTrainer(SFTTrainer):
    """Trains on batches that an `ExampleCollator` makes of `GroupedBatches`."""

    def __init__(self, *, examples: Examples, collator: ExampleCollator, args: SFTConfig, **kwargs: Any) -> None:
        super().__init__(
            args=args, train_dataset=datasets.Dataset.from_dict(examples.to_dict()), data_collator=collator, **kwargs
        )
        self.remove_callback(PrinterCallback)
        self._batches = GroupedBatches(examples.kinds, args.per_device_train_batch_size, args.seed)

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=torch.cuda.is_available() and not self.args.use_cpu,
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    def train_from(self, checkpoint: Path | None) -> None:
        """Train to the end; from a checkpoint of the last step only its weights are loaded.

        The Trainer itself would make one step more from such a checkpoint if it lies within an epoch.
        """
        state = None if checkpoint is None else TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if checkpoint is None or state is None or state.global_step < state.max_steps:
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            return
        self._load_from_checkpoint(str(checkpoint))
        self.state = state

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load what `save_pretrained` wrote by `from_pretrained`.

        The Trainer takes the names in the file for those of the modules. Where the two differ (LLaVA), it would go on
        with the weights that it has, and do no more than log a warning.
        """
        target = self.model if model is None else model
        if not isinstance(target, PreTrainedModel):  # an adapter, whose names don't differ
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        dtype = next(target.parameters()).dtype
        target.load_state_dict(type(target).from_pretrained(resume_from_checkpoint, dtype=dtype).state_dict())

    def _send_telemetry(self) -> None:
        """TRL would tell Hugging Face about this training; nothing is sent."""


class MetricsWriter(TrainerCallback):
    """Writes what the Trainer logs as lines of JSON, with the seconds of training so far."""

    def __init__(self, file: MetricsFile) -> None:
        self._file, self._began = file, time.monotonic()

    @property
    def seconds(self) -> float:
        return self._file.seconds + time.monotonic() - self._began

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        numbers = {name: value for name, value in kwargs.get("logs", {}).items() if isinstance(value, int | float)}
        self._add(state, {name: value for name, value in numbers.items() if math.isfinite(value)})
        # "train_loss", the mean over all steps, comes once at the end: the last steps may have no line of their own.
        if not all(math.isfinite(numbers.get(name, 0.0)) for name in ("loss", "train_loss")):
            raise DeltaAttnMaskError(
                f"the loss is not finite at step {state.global_step}; a lower learning rate or another precision "
                "may help"
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._add(state, {"event": "checkpoint"})

    def _add(self, state: TrainerState, values: dict[str, Any]) -> None:
        self._file.add({"step": state.global_step, "seconds": round(self.seconds, 3), **values})


class StepReporter(TrainerCallback):
    """Tells after each step how far the training has come."""

    def __init__(self, on_step: OnStep, n_rows: int) -> None:
        self._on_step, self._n_rows = on_step, n_rows

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.on_step_end(args, state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._on_step(self._n_rows * state.global_step // max(1, state.max_steps), self._n_rows)

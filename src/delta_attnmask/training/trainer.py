"""TRL's `SFTTrainer` on our own batches, and the callback that writes metrics and reports progress."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Sampler
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.encoding.row_encoder import RowEncoder
from delta_attnmask.errors import DataError, DeltaAttnMaskError, RowError
from delta_attnmask.modeling.kernels import is_recent_gpu
from delta_attnmask.reading.rows import Rows
from delta_attnmask.training.examples import Examples, Numbers
from delta_attnmask.training.folder import MetricsFile
from delta_attnmask.training.masked_states import ALLOWED, KEYS
from delta_attnmask.training.plan import TrainingPlan

_NEFTUNE_ALPHA = 5.0  # arXiv:2310.05914
OnStep = Callable[[int, int], None]  # rows done, rows in all; a row counts as often as it comes
OnLoss = Callable[[int, int, float], None]  # step, steps in all, loss since the line before


class GroupedBatches(Sampler[list[int]]):
    """Batches of examples of one group each, in an order that seed and epoch decide.

    Every example comes once an epoch. The last batch of a group is smaller where its size doesn't divide.
    """

    def __init__(self, kinds: Numbers, batch_size: int, seed: int):
        self._kinds, self._size, self._seed = kinds, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        _, sizes = np.unique(self._kinds, return_counts=True)
        return int(np.ceil(sizes / self._size).sum())

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        groups = [rng.permutation(np.flatnonzero(self._kinds == kind)).tolist() for kind in np.unique(self._kinds)]
        batches = [batch for group in groups for batch in BatchSampler(group, self._size, drop_last=False)]
        yield from (batches[index] for index in rng.permutation(len(batches)))


class ExampleCollator:
    """Encodes the rows of a batch; labels cover the same tokens that scoring counts.

    dtype: of pixels. marks: also give the columns by which masking distinguishes examples.
    """

    def __init__(self, dataset: Rows, encoder: Encoder, dtype: torch.dtype, *, marks: bool):
        self._dataset, self._dtype, self._marks = dataset, dtype, marks
        self._pad_token_id = encoder.pad_token_id
        self._encode_rows = RowEncoder(encoder, dataset.load_image)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        samples = [self._encode(example["row"]) for example in examples]
        batch = collate(samples, self._pad_token_id).to(torch.device("cpu"), self._dtype)
        columns = {**batch.inputs, "labels": batch.labels}
        if self._marks:
            columns[KEYS] = torch.tensor([example["key"] for example in examples])
            columns[ALLOWED] = torch.tensor([example["is_allowed"] for example in examples])
        return columns

    def _encode(self, row: int) -> EncodedSample:
        (encoded,) = self._encode_rows(list(self._dataset.records(row, row + 1)))
        if isinstance(encoded, RowError):
            raise DataError(f"row {row} could be read before the training, and can't be now: {encoded}") from encoded
        return encoded[""]


def training_arguments(plan: TrainingPlan, checkpoints: Path, device: torch.device, n_workers: int = 0) -> SFTConfig:
    """The plan in the Trainer's own words; it runs on one device, whatever else is visible."""
    is_gpu = device.type == "cuda"
    config = SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=plan.epochs,
        max_steps=plan.max_steps or -1,
        learning_rate=plan.highest_learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=plan.warmup,
        weight_decay=plan.weight_decay,
        per_device_train_batch_size=plan.batch_size,
        gradient_accumulation_steps=plan.accumulate,
        **_checkpointing(plan.gradient_checkpointing),
        neftune_noise_alpha=_NEFTUNE_ALPHA if plan.augment == "neftune" else None,
        seed=plan.seed,
        data_seed=plan.seed,
        bf16=is_gpu and is_recent_gpu(device),
        use_cpu=device.type == "cpu",
        logging_steps=plan.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=plan.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=n_workers,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        remove_unused_columns=False,
    )
    config._n_gpu = min(1, config.n_gpu)  # all visible ones otherwise, each with a copy that no hook knows
    return config


def _checkpointing(is_wanted: bool) -> dict[str, Any]:
    """Of activations, under the name that this version of transformers has for it."""
    names = {field.name for field in fields(SFTConfig)}
    name = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    return {name: is_wanted, f"{name}_kwargs": {"use_reentrant": False}}


class ExampleTrainer(SFTTrainer):
    """Trains on batches that an `ExampleCollator` makes of `GroupedBatches`."""

    def __init__(self, *, examples: Examples, collator: ExampleCollator, args: SFTConfig, **kwargs: Any) -> None:
        columns = {"row": examples.rows, "key": examples.keys, "is_allowed": examples.is_allowed}
        data = datasets.Dataset.from_dict(columns)
        super().__init__(args=args, train_dataset=data, data_collator=collator, **kwargs)
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

        The Trainer takes the names in the file for those of the modules. Where the two differ (LLaVA), it would keep
        the weights that it has, and do no more than log a warning.
        """
        target = self.model if model is None else model
        if not isinstance(target, PreTrainedModel):  # an adapter, whose names don't differ
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        dtype = next(target.parameters()).dtype
        target.load_state_dict(type(target).from_pretrained(resume_from_checkpoint, dtype=dtype).state_dict())

    def _send_telemetry(self) -> None:
        """TRL would report this training to Hugging Face; nothing is sent."""


class Journal(TrainerCallback):
    """Writes what the Trainer logs as lines of JSON, with the seconds of training so far, and reports progress.

    n_rows: rows in all, each as often as it comes.
    """

    def __init__(self, file: MetricsFile, n_rows: int, on_step: OnStep, on_loss: OnLoss) -> None:
        self._file, self._began = file, time.monotonic()
        self._n_rows, self._on_step, self._on_loss = n_rows, on_step, on_loss

    @property
    def seconds(self) -> float:
        return self._file.seconds + time.monotonic() - self._began

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.on_step_end(args, state, control)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._on_step(self._n_rows * state.global_step // max(1, state.max_steps), self._n_rows)

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        numbers = {name: value for name, value in kwargs.get("logs", {}).items() if isinstance(value, int | float)}
        self._add(state, {name: value for name, value in numbers.items() if math.isfinite(value)})
        # "train_loss", the mean over all steps, comes once at the end: the last steps may have no line of their own.
        if not all(math.isfinite(numbers.get(name, 0.0)) for name in ("loss", "train_loss")):
            raise DeltaAttnMaskError(
                f"the loss is not finite at step {state.global_step}; a lower learning rate or another precision "
                "may help"
            )
        if "loss" in numbers:
            self._on_loss(state.global_step, state.max_steps, numbers["loss"])

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._add(state, {"event": "checkpoint"})

    def _add(self, state: TrainerState, values: dict[str, Any]) -> None:
        self._file.add({"step": state.global_step, "seconds": round(self.seconds, 3), **values})

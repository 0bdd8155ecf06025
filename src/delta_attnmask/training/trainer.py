"""TRL's `SFTTrainer` on our own batches, and the callback that writes metrics and reports progress."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Sampler
from transformers import PreTrainedModel, PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from delta_attnmask.encoding.collate import collate
from delta_attnmask.encoding.encoder import EncodedSample, Encoder
from delta_attnmask.encoding.row_encoder import RowEncoder
from delta_attnmask.errors import DataError, DeltaAttnMaskError, RowError
from delta_attnmask.modeling.devices import is_recent_gpu
from delta_attnmask.reading.rows import Rows
from delta_attnmask.storage import write_text_atomically
from delta_attnmask.training.examples import Numbers
from delta_attnmask.training.masked_states import ALLOWED, KEYS
from delta_attnmask.training.plan import TrainingPlan

OnStep = Callable[[int, int, int], None]  # rows done, rows in all, each as often as it comes; rows that failed
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
    names = {field.name for field in fields(SFTConfig)}  # by version
    name = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    activations: dict[str, Any] = {name: plan.gradient_checkpointing, f"{name}_kwargs": {"use_reentrant": False}}
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
        **activations,
        seed=plan.seed,
        data_seed=plan.seed,
        bf16=is_gpu and is_recent_gpu(device),
        use_cpu=device.type == "cpu",
        logging_steps=plan.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=plan.save_steps,
        save_total_limit=2,
        report_to=plan.report_to,
        run_name=checkpoints.parent.name,
        disable_tqdm=True,
        dataloader_num_workers=n_workers,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        remove_unused_columns=False,
    )
    config._n_gpu = min(1, config.n_gpu)  # all visible ones otherwise, each with a copy that no hook knows
    return config


class ExampleTrainer(SFTTrainer):
    """Trains on batches that an `ExampleCollator` makes of `GroupedBatches`."""

    def __init__(self, *, examples: pa.Table, collator: ExampleCollator, args: SFTConfig, **kwargs: Any) -> None:
        super().__init__(args=args, train_dataset=datasets.Dataset(examples), data_collator=collator, **kwargs)
        self.remove_callback(PrinterCallback)
        self._batches = GroupedBatches(examples["kind"].to_numpy(), args.per_device_train_batch_size, args.seed)

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

        The Trainer itself would make one step more from such a checkpoint if it is within an epoch.
        """
        if checkpoint is not None:
            state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
            if state.global_step >= state.max_steps:
                self._load_from_checkpoint(str(checkpoint))
                self.state = state
                return
        self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

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

    path: written anew from the checkpoint's log when a training resumes. n_rows: in all, each as often as it comes.
    """

    def __init__(self, path: Path, n_rows: int, on_step: OnStep, on_loss: OnLoss) -> None:
        self._path, self._n_rows, self._on_step, self._on_loss = path, n_rows, on_step, on_loss
        self._began = 0.0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic() - (state.log_history[-1]["seconds"] if state.log_history else 0.0)
        write_text_atomically(self._path, "".join(map(_to_json, state.log_history)))
        self._report(state)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log |= control.should_save  # a checkpoint's log says how long it took to get there
        self._report(state)

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        line = state.log_history[-1]
        line["seconds"] = round(time.monotonic() - self._began, 3)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_to_json(line))
        # "train_loss", the mean over all steps, comes once at the end.
        if not all(math.isfinite(line.get(name, 0.0)) for name in ("loss", "train_loss")):
            raise DeltaAttnMaskError(
                f"the loss is not finite at step {state.global_step}; a lower learning rate or another precision "
                "may help"
            )
        if "loss" in line:
            self._on_loss(state.global_step, state.max_steps, line["loss"])

    def _report(self, state: TrainerState) -> None:
        self._on_step(self._n_rows * state.global_step // max(1, state.max_steps), self._n_rows, 0)


def _to_json(line: Mapping[str, float]) -> str:
    return json.dumps({name: value for name, value in line.items() if math.isfinite(value)}) + "\n"

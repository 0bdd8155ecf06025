"""Train a loaded model on a data set into a folder; the same call resumes where an earlier one stopped."""

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from peft import LoraConfig
from torch import nn
from transformers.pytorch_utils import Conv1D

from delta_attnmask.encoding.encoder import make_encoder
from delta_attnmask.encoding.row_encoder import RowEncoder, n_bytes
from delta_attnmask.errors import SettingsError
from delta_attnmask.executing.workers import Workers
from delta_attnmask.manifest import Manifest
from delta_attnmask.modeling.anatomy import Anatomy, examine, text_config
from delta_attnmask.modeling.changing import innermost
from delta_attnmask.modeling.devices import is_recent_gpu
from delta_attnmask.modeling.load import LoadedModel, bars_on_terminals_only, quiet_peft
from delta_attnmask.reading.faults import commonest, generalise
from delta_attnmask.reading.rows import Rows
from delta_attnmask.runs import RunFolder
from delta_attnmask.scoring.pipeline import default_workers
from delta_attnmask.scoring.worker import make_manifest
from delta_attnmask.settings import MAX_FAILED
from delta_attnmask.training.examples import (
    OnProgress,
    choose_examples,
    find_usable_rows,
    require_usable,
    scored_rows,
    skipped_faults,
)
from delta_attnmask.training.folder import TrainingFolder
from delta_attnmask.training.masked_states import MaskedStateAugmentation, masked_states
from delta_attnmask.training.plan import LoraSettings, TrainingPlan
from delta_attnmask.training.trainer import ExampleCollator, ExampleTrainer, Journal, OnLoss, training_arguments

_VERSIONED = ("trl", "peft", "accelerate", "datasets")


@dataclass(frozen=True)
class Outcome:
    """What a training came to. about: the content of OUT/train.json. is_new: whether anything was left to do."""

    path: Path
    about: dict[str, Any]
    is_new: bool


def train_dataset(
    loaded: LoadedModel,
    dataset: Rows,
    out: str | Path,
    plan: TrainingPlan,
    *,
    merge: bool = False,
    max_failed: float = MAX_FAILED,
    n_workers: int | None = None,
    command: tuple[str, ...] = (),
    on_progress: OnProgress = lambda what, n_done, n_rows, n_skipped: None,
    on_loss: OnLoss = lambda step, n_steps, loss: None,
) -> Outcome:
    """Finetune `loaded.model` in place on the answers of `dataset`, and save it with its processor in `out`.

    An adapter is taken off again once it is saved.

    merge: fold a LoRA adapter into the weights before saving. max_failed: the share of rows that may fail.
    n_workers: processes that encode ahead; 0 encodes in this one, None chooses by the device.
    Raises ArtifactError where `out` belongs to another training or is in use, DataError where no row can be used or
    more than `max_failed` can't, SettingsError where the plan doesn't fit the model or its scores.
    """
    _require_one_process()
    _require_fit(loaded, plan)
    encoder = make_encoder(loaded, plan.max_tokens)
    n_workers = default_workers(loaded.device) if n_workers is None else n_workers
    with TrainingFolder.start(out, _manifest(loaded, dataset, plan, merge, command)) as folder:
        if (about := folder.results) is not None:
            return Outcome(folder.path, about, is_new=False)
        table = folder.read_rows()
        if table is None:
            with closing(Workers(RowEncoder(encoder, dataset.load_image), n_workers, n_bytes=n_bytes)) as encode:
                table = find_usable_rows(encode.map(dataset), dataset.n_rows, on_progress)
            require_usable(table, plan, max_failed)
            folder.write_rows(table)
        examples = choose_examples(table, plan)
        n_rows = round(len(examples) * plan.epochs)
        if plan.max_steps is not None:
            n_rows = plan.max_steps * plan.batch_size * plan.accumulate
        journal = Journal(folder.path / "metrics.jsonl", n_rows, partial(on_progress, "training"), on_loss)
        collator = ExampleCollator(dataset, encoder, loaded.dtype, marks=plan.augmentation is not None)
        results = _train(loaded, folder, plan, examples, collator, journal, merge, n_workers)
        faults = skipped_faults(table)
        n_skipped = sum(fault.n_rows for fault in faults.values())
        folder.complete(
            augment=plan.augment,
            seed=plan.seed,
            n_rows=table.num_rows - n_skipped,
            n_examples=len(examples),
            n_skipped=n_skipped,
            skipped={generalise(fault.example): fault.n_rows for fault in commonest(faults)},
            **results,
        )
        return Outcome(folder.path, folder.results or {}, is_new=True)


def training_dtype(plan: TrainingPlan, device: torch.device) -> torch.dtype:
    """Of the weights: float32, but bfloat16 for frozen weights on a GPU that computes in it."""
    is_half = device.type == "cuda" and is_recent_gpu(device) and plan.lora is not None
    return torch.bfloat16 if is_half else torch.float32


def _train(
    loaded: LoadedModel,
    folder: TrainingFolder,
    plan: TrainingPlan,
    examples: pa.Table,
    collator: ExampleCollator,
    journal: Journal,
    merge: bool,
    n_workers: int,
) -> dict[str, Any]:
    """Train, save, and say in numbers how that went."""
    anatomy = examine(loaded.model)
    if plan.only_language:
        freeze_all_but_language(anatomy)
    settings = plan.augmentation
    augmentation = None if settings is None else MaskedStateAugmentation(**vars(settings))
    with augmentation or nullcontext(), bars_on_terminals_only(), quiet_peft():
        with _same_configuration(loaded.model):
            trainer = ExampleTrainer(
                model=loaded.model,
                examples=examples,
                collator=collator,
                args=training_arguments(plan, folder.checkpoints, loaded.device, n_workers),
                processing_class=loaded.processor,
                peft_config=None if plan.lora is None else _lora_config(anatomy, plan.lora),
                callbacks=[*([augmentation] if augmentation else []), journal],
            )
            trainer.train_from(folder.last_checkpoint())
        _save(trainer, loaded, folder.path, merge)
        if plan.lora is not None and not merge:
            trainer.accelerator.unwrap_model(trainer.model).unload()
    logs = trainer.state.log_history
    loss = next(line["loss"] for line in reversed(logs) if "loss" in line)
    counts = {"n_masked": augmentation.masking.n_masked} if augmentation and augmentation.masking else {}
    return {"seconds": logs[-1]["seconds"], "n_steps": trainer.state.global_step, "loss": loss, **counts}


@contextmanager
def _same_configuration(model: Any) -> Iterator[None]:
    """The Trainer switches the cache off; afterwards the configuration says what it said before."""
    configs = [vars(model.config), vars(text_config(model))]
    had = [{name: values[name] for name in ("use_cache",) if name in values} for values in configs]
    yield
    for values, own in zip(configs, had, strict=True):
        values.pop("use_cache", None)
        values |= own


def _save(trainer: ExampleTrainer, loaded: LoadedModel, out: Path, merge: bool) -> None:
    """The model (or its adapter) and the processor, such that `from_pretrained` loads them from `out`."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if merge:
        model = model.merge_and_unload()
    elif model is not innermost(model):
        adapter = model.peft_config["default"]
        adapter.revision = loaded.revision
        if Path(loaded.name).exists():
            adapter.base_model_name_or_path = str(Path(loaded.name).absolute())
    model.save_pretrained(out)
    loaded.processor.save_pretrained(out)


def _lora_config(anatomy: Anatomy, lora: LoraSettings) -> LoraConfig:
    """Adapters on the linear layers of the decoder's blocks, matched by a pattern over their full names."""
    blocks = next(name for name, module in anatomy.decoder.named_modules() if module is anatomy.blocks)
    path = f"{anatomy.decoder_path}.{blocks}" if anatomy.decoder_path else blocks
    linear = {
        name.rpartition(".")[2]
        for name, module in anatomy.blocks.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=rf"{re.escape(path)}\.\d+\..*\b({'|'.join(sorted(map(re.escape, linear)))})",
        task_type="CAUSAL_LM",
    )


def freeze_all_but_language(anatomy: Anatomy) -> None:
    """Leave only the decoder, its head and the embeddings to be trained."""
    kept = {id(weight) for weight in anatomy.decoder.parameters()}
    for part in (anatomy.model.get_input_embeddings(), anatomy.model.get_output_embeddings()):  # type: ignore[operator]
        kept |= {id(weight) for weight in part.parameters()}
    for weight in anatomy.model.parameters():
        weight.requires_grad_(id(weight) in kept)


def _require_one_process() -> None:
    if (n_processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise SettingsError(
            f"{n_processes} processes were started, but `train` runs in one; for several GPUs use "
            "MaskedStateAugmentation in a script of your own (docs/training.md)"
        )


def _require_fit(loaded: LoadedModel, plan: TrainingPlan) -> None:
    """Raise now what would only show after hours of reading."""
    if plan.augmentation is not None:
        with masked_states(loaded.model, plan.augmentation):
            pass
    if plan.from_scores is not None:
        scored_rows(plan.from_scores, plan.by)


def _manifest(
    loaded: LoadedModel, dataset: Rows, plan: TrainingPlan, merge: bool, command: tuple[str, ...]
) -> Manifest:
    """What decides the outcome; must not change between starts."""
    scores = None if plan.from_scores is None else RunFolder.open(plan.from_scores).manifest_sha256
    settings = {**plan.to_dict(), "merge": merge, "scores_manifest_sha256": scores}
    manifest = make_manifest(loaded, dataset, settings, dataset.n_rows, command)
    return replace(manifest, versions={**manifest.versions, **{name: version(name) for name in _VERSIONED}})

"""Train a loaded model on a data set into a folder; the same call goes on where an earlier one stopped."""

import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from peft import LoraConfig
from torch import nn
from transformers.pytorch_utils import Conv1D
from trl.trainer.sft_config import SFTConfig

from delta_attnmask.artifacts import RunFolder, collect_versions
from delta_attnmask.encoding.encoder import Encoder
from delta_attnmask.errors import SettingsError
from delta_attnmask.modeling.anatomy import Anatomy, examine, text_config
from delta_attnmask.modeling.changing import innermost
from delta_attnmask.modeling.devices import is_recent_gpu
from delta_attnmask.modeling.fingerprint import model_fingerprint
from delta_attnmask.modeling.load import LoadedModel, bars_on_terminals_only
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.scoring.setup import make_encoder
from delta_attnmask.training.augmentation import MaskedStateAugmentation
from delta_attnmask.training.examples import ExampleCollator, Examples, choose_examples
from delta_attnmask.training.folder import MetricsFile, TrainingFolder
from delta_attnmask.training.masked_states import masked_states
from delta_attnmask.training.plan import LoraSettings, TrainingPlan
from delta_attnmask.training.rows import count_reasons, find_usable_rows, read_rows, write_rows
from delta_attnmask.training.top_rows import scored_rows
from delta_attnmask.training.trainer import ExampleTrainer, MetricsWriter, OnStep, StepReporter

OnRow = Callable[[int, int, int], None]  # rows done, rows in all, rows skipped


@dataclass(frozen=True)
class Outcome:
    """What a training came to. about: the content of OUT/train.json. is_new: whether anything was left to do."""

    path: Path
    about: dict[str, Any]
    is_new: bool


def train_dataset(
    loaded: LoadedModel,
    dataset: Dataset,
    out: str | Path,
    plan: TrainingPlan,
    *,
    merge: bool = False,
    n_workers: int | None = None,
    command: tuple[str, ...] = (),
    on_row: OnRow = lambda n_done, n_rows, n_skipped: None,
    on_step: OnStep = lambda n_done, n_rows: None,
) -> Outcome:
    """Finetune `loaded.model` in place on the answers of `dataset`, and save it with its processor in `out`.

    merge: fold a LoRA adapter into the weights before saving. n_workers: processes that read batches ahead; 0 reads
    in this one, None chooses by the device.
    Raises ArtifactError where `out` belongs to another training or is in use, DataError where no row can be used,
    SettingsError where the plan doesn't fit the model or its scores.
    """
    _require_one_process()
    _require_fit(loaded, plan)
    anatomy = examine(loaded.model)
    encoder = make_encoder(loaded, plan.max_tokens)
    identity = {"model": model_fingerprint(loaded.model), "merge": merge, **_identity(loaded, dataset, plan)}
    about = {"model": loaded.name, "data": str(dataset.path), "command": list(command), "versions": _versions()}
    with TrainingFolder.start(out, identity, about) as folder:
        if folder.is_complete:
            return Outcome(folder.path, folder.about, is_new=False)
        began = time.monotonic()
        table = _usable_rows(folder, dataset, encoder, on_row)
        prepare_seconds = time.monotonic() - began
        examples = choose_examples(table, plan)
        collator = ExampleCollator(dataset, encoder, loaded.dtype, marks=plan.augmentation is not None)
        results = _train(loaded, anatomy, folder, plan, examples, collator, merge, n_workers, on_step)
        skipped = count_reasons(table)
        folder.complete(
            augment=plan.augment,
            seed=plan.seed,
            n_rows=table.num_rows - sum(skipped.values()),
            n_examples=len(examples),
            n_skipped=sum(skipped.values()),
            skipped=skipped,
            prepare_seconds=round(prepare_seconds, 3),
            **results,
        )
        return Outcome(folder.path, folder.about, is_new=True)


def training_dtype(plan: TrainingPlan, device: torch.device) -> torch.dtype:
    """Of the weights: float32, but bfloat16 for frozen weights on a GPU that computes in it."""
    is_half = device.type == "cuda" and is_recent_gpu(device) and plan.lora is not None
    return torch.bfloat16 if is_half else torch.float32


def _train(
    loaded: LoadedModel,
    anatomy: Anatomy,
    folder: TrainingFolder,
    plan: TrainingPlan,
    examples: Examples,
    collator: ExampleCollator,
    merge: bool,
    n_workers: int | None,
    on_step: OnStep,
) -> dict[str, Any]:
    """Train, save, and say in numbers how that went."""
    if plan.only_language:
        freeze_all_but_language(anatomy)
    checkpoint = folder.last_checkpoint()
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    metrics = MetricsWriter(MetricsFile(folder.path / "metrics.jsonl", step))
    augmentation = _augmentation(plan, collator)
    use_cache = text_config(loaded.model).use_cache
    n_rows = (
        plan.max_steps * plan.batch_size * plan.accumulate if plan.max_steps else round(len(examples) * plan.epochs)
    )
    with augmentation or nullcontext(), bars_on_terminals_only(), _quiet_peft():
        trainer = ExampleTrainer(
            model=loaded.model,
            examples=examples,
            collator=collator,
            args=_arguments(loaded, folder, plan, n_workers),
            processing_class=loaded.processor,
            peft_config=None if plan.lora is None else _lora_config(anatomy, plan.lora),
            callbacks=[*([augmentation] if augmentation else []), metrics, StepReporter(on_step, n_rows)],
        )
        trainer.train_from(checkpoint)
        text_config(loaded.model).use_cache = use_cache  # the Trainer switches it off for gradient checkpointing
        _save(trainer, loaded, folder.path, merge)
    masking = augmentation.masking if augmentation else None
    counts = {"n_changed": masking.n_masked} if masking else {}
    loss = next((line["loss"] for line in reversed(trainer.state.log_history) if "loss" in line), None)
    return {"seconds": round(metrics.seconds, 3), "n_steps": trainer.state.global_step, "loss": loss, **counts}


def _augmentation(plan: TrainingPlan, collator: ExampleCollator) -> MaskedStateAugmentation | None:
    settings = plan.augmentation
    if settings is None:
        return None
    return MaskedStateAugmentation(
        settings.mask,
        probability=settings.probability,
        schedule=settings.schedule,
        form=settings.form,
        seed=settings.seed,
        special_ids=collator.special_ids,
    )


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Without the warnings that PEFT draws by asking transformers for names of before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        yield


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


def _arguments(loaded: LoadedModel, folder: TrainingFolder, plan: TrainingPlan, n_workers: int | None) -> SFTConfig:
    is_gpu = loaded.device.type == "cuda"
    workers = n_workers if n_workers is not None else (min(4, os.cpu_count() or 1) if is_gpu else 0)
    config = SFTConfig(
        output_dir=str(folder.checkpoints),
        num_train_epochs=plan.epochs,
        max_steps=plan.max_steps or -1,
        learning_rate=plan.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=plan.warmup,
        weight_decay=plan.weight_decay,
        per_device_train_batch_size=plan.batch_size,
        gradient_accumulation_steps=plan.accumulate,
        **_checkpointing(plan.gradient_checkpointing),
        neftune_noise_alpha=plan.neftune_alpha if plan.augment == "neftune" else None,
        seed=plan.seed,
        data_seed=plan.seed,
        bf16=is_gpu and is_recent_gpu(loaded.device),
        use_cpu=loaded.device.type == "cpu",
        logging_steps=plan.log_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=plan.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=workers,
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


def _lora_config(anatomy: Anatomy, lora: LoraSettings) -> LoraConfig:
    """Adapters on the linear layers of the decoder's blocks, told by a pattern over their full names."""
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
    """Raise now what else would be told after hours of reading, when the folder belongs to the faulty plan already."""
    if plan.augmentation is not None:
        with masked_states(loaded.model, plan.augmentation):
            pass
    if plan.from_scores is not None:
        scored_rows(plan.from_scores, plan.by)


def _usable_rows(folder: TrainingFolder, dataset: Dataset, encoder: Encoder, on_row: OnRow) -> pa.Table:
    table = read_rows(folder.path)
    if table is None:
        table = find_usable_rows(dataset, encoder, min(8, os.cpu_count() or 1), on_row)
        write_rows(table, folder.path)
    return table


def _identity(loaded: LoadedModel, dataset: Dataset, plan: TrainingPlan) -> dict[str, Any]:
    """What decides the outcome; must not change between starts."""
    scores = None if plan.from_scores is None else RunFolder.open(plan.from_scores).manifest_sha256
    return {
        "data_sha256": dataset.fingerprint.sha256,
        "n_input_rows": dataset.n_rows,
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "scores_manifest_sha256": scores,
        **{f"plan.{name}": value for name, value in plan.to_dict().items() if name != "from_scores"},
    }


def _versions() -> dict[str, str]:
    return collect_versions() | {name: version(name) for name in ("trl", "peft", "accelerate", "datasets")}

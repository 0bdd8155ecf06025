"""`delta-attnmask train`: finetune a model on a selected part, with masked states as augmentation if wanted."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from delta_attnmask.cli.options import TRAINING, DataOptions, MaskOptions, ModelOptions, require_workers
from delta_attnmask.cli.terminal import print_data, print_table
from delta_attnmask.errors import SettingsError
from delta_attnmask.progress import print_note, show_phases
from delta_attnmask.runs import RunFolder
from delta_attnmask.training.plan import LoraSettings, Share, TrainingPlan, require_trainable


def train(
    *,
    model: ModelOptions,
    rows: DataOptions,
    out: Path,
    plan: Annotated[TrainingPlan, Parameter(name="*", group=TRAINING)] = TrainingPlan(),
    settings: str | None = None,
    mask: MaskOptions = MaskOptions(),
    lora: bool = False,
    adapter: Annotated[LoraSettings, Parameter(name="*", group=TRAINING)] = LoraSettings(),
    merge: bool = False,
    max_failed: Share = 0.05,
    workers: int | None = None,
) -> None:
    """Finetune a model on the answers of a data set. Rerun the same command to resume.

    At the end, OUT holds the model and its processor, train.json (what was trained on what, and how long it took),
    metrics.jsonl and rows.parquet (every row, and why it couldn't be used).

    With --dtype auto, weights are float32 and computed in bfloat16 on GPUs that support it; with --lora they are
    bfloat16 there. --device is auto, cpu or cuda.

    Args:
        out: Folder, created if missing.
        settings: What is masked: relative, paper, or a folder that `calibrate` made. If not given, the settings of the
            run in --from-scores, else relative. Single options change what this gives.
        lora: Train low-rank adapters on the decoder's linear layers instead of all weights.
        merge: Fold the adapters into the weights at the end, so that OUT is a whole model.
        max_failed: Share of the rows that may fail, such as 5%; if more do, nothing is trained and the exit code is 2.
            Rows that --max-tokens leaves out don't count.
        workers: Processes that read batches ahead; 0 reads in the training process.
    """
    if merge and not lora:
        raise SettingsError("merge: there is nothing to merge without --lora")
    require_workers(workers)
    require_trainable(model.device, model.dtype)
    scored = None if settings is not None or plan.from_scores is None else RunFolder.open(plan.from_scores)
    plan = replace(plan, mask=mask.choose(settings, scored), lora=adapter if lora else None)
    dataset = rows.open()
    print_data(dataset)

    from delta_attnmask.modeling.devices import choose_device
    from delta_attnmask.training.finetuning import train_dataset, training_dtype

    if model.dtype == "auto":
        precision: Any = str(training_dtype(plan, choose_device(model.device))).removeprefix("torch.")
        model = replace(model, dtype=precision)
    loaded = model.load_model(model.model, model.revision)
    with show_phases() as advance:
        outcome = train_dataset(
            loaded,
            dataset,
            out,
            plan,
            merge=merge,
            max_failed=max_failed,
            n_workers=workers,
            command=tuple(sys.argv),
            on_progress=advance,
            on_loss=lambda step, n_steps, loss: print_note(f"step {step:,} of {n_steps:,}: loss {loss:.4g}"),
        )
    about = outcome.about
    if about["n_skipped"]:
        print_table("Skipped rows, by kind", ["reason", "rows"], about["skipped"].items())
        print(f"{about['n_skipped']} rows were skipped (see rows.parquet) and aren't tried again in {out}")
    if not outcome.is_new:
        print(f"{out} is already trained ({about['n_steps']} steps); choose another folder to train again")
        return
    print(
        f"{out}: {about['n_rows']} rows, {about['n_steps']} steps, {about['seconds']:.0f} s, loss {about['loss']:.4g}"
    )

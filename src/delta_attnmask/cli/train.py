"""`delta-attnmask train`: finetune a model on a selected part, with masked states as augmentation if wanted."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from delta_attnmask.calibration import read_preset
from delta_attnmask.cli.options import NO_MASK_OPTIONS, DataOptions, MaskOptions, mask_of
from delta_attnmask.cli.understood import tell_format
from delta_attnmask.errors import SettingsError
from delta_attnmask.progress import Advance, show_progress
from delta_attnmask.settings import MaskSettings
from delta_attnmask.training.plan import LoraSettings, Share, TrainingPlan

if TYPE_CHECKING:
    from delta_attnmask.training.finetuning import Listeners, Outcome

_PLAIN = TrainingPlan()


def train(
    *,
    model: str,
    rows: DataOptions,
    out: Path,
    plan: Annotated[TrainingPlan, Parameter(name="*")] = _PLAIN,
    settings: str | None = None,
    mask: MaskOptions = NO_MASK_OPTIONS,
    lora: bool = False,
    lora_rank: int = 16,
    lora_alpha: int = 32,
    lora_dropout: float = 0.0,
    merge: bool = False,
    max_failed: Share = 0.05,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int | None = None,
    revision: str | None = None,
) -> int:
    """Finetune a model on the answers of a data set. Rerun the same command to resume.

    OUT holds the model and its processor in the end, train.json (what was trained on what, and how long it took),
    metrics.jsonl, rows.parquet and skipped.jsonl (rows that can't be used, with reasons).

    Parameters
    ----------
    model
        Folder of a Hugging Face model, or its name on the hub.
    out
        Folder, made if missing.
    settings
        What is masked: relative, paper, or a folder that `calibrate` made. If not given, the settings of the run in
        --from-scores, else relative. Single options change what this gives.
    lora
        Train low-rank adapters on the decoder's linear layers instead of all weights.
    lora_rank
        Rank of the adapters.
    lora_alpha
        Their scale is alpha / rank.
    lora_dropout
        Dropout in front of them.
    merge
        Fold the adapters into the weights at the end, so that OUT is a whole model.
    max_failed
        Share of the rows that may fail, such as 5%; where more do, nothing is trained and the exit code is 2. Rows
        that --max-tokens leaves out don't count.
    dtype
        Of the weights. auto: float32, computing in bfloat16 on GPUs that can; with --lora on such GPUs bfloat16.
    device
        auto, cpu or cuda.
    workers
        Processes that read batches ahead; 0 reads in the training process.
    revision
        Revision of a model on the hub.
    """
    if merge and not lora:
        raise SettingsError("merge: there is nothing to merge without --lora")
    if workers is not None and workers < 0:
        raise SettingsError(f"workers={workers}: expected 0 or more")
    plan = replace(
        plan,
        mask=choose_mask(settings, plan.from_scores, mask.given),
        lora=LoraSettings(rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout) if lora else None,
    )
    dataset = rows.open()
    tell_format(dataset)

    from delta_attnmask.modeling.devices import choose_device
    from delta_attnmask.modeling.load import load_model
    from delta_attnmask.training.finetuning import train_dataset, training_dtype

    precision: Any = str(training_dtype(plan, choose_device(device))).removeprefix("torch.")
    loaded = load_model(model, dtype=precision if dtype == "auto" else dtype, device=device, revision=revision)
    with _listening() as listeners:
        outcome = train_dataset(
            loaded,
            dataset,
            out,
            plan,
            merge=merge,
            max_failed=max_failed,
            n_workers=workers,
            command=tuple(sys.argv),
            listeners=listeners,
        )
    _print_outcome(outcome)
    return 0


def choose_mask(settings: str | None, from_scores: Path | None, overrides: dict[str, Any]) -> MaskSettings:
    """The mask of a preset, of a calibration, or of the run that the scores come from, with single options changed."""
    if settings is None and from_scores is not None:
        from delta_attnmask.runs import RunFolder

        mask = mask_of(RunFolder.open(from_scores).manifest.settings)
    else:
        mask = read_preset(settings or "relative")[0].mask
    return replace(mask, **overrides)


@contextmanager
def _listening() -> Iterator["Listeners"]:
    """Show the progress of reading and then of training, and the loss as it goes."""
    from delta_attnmask.training.finetuning import Listeners

    def print_loss(step: int, n_steps: int, loss: float) -> None:
        print(f"step {step:,} of {n_steps:,}: loss {loss:.4g}", file=sys.stderr, flush=True)

    with _phases() as advance:
        yield Listeners(
            on_row=partial(advance, "reading"),
            on_step=lambda n_done, n_rows: advance("training", n_done, n_rows, 0),
            on_loss=print_loss,
        )


@contextmanager
def _phases() -> Iterator[Callable[[str, int, int, int], None]]:
    """Show the progress of one phase after the other, each under its name."""
    with ExitStack() as shown:
        begun: dict[str, tuple[Advance, int]] = {}  # with what was done when it began, such as before a restart
        last = time.monotonic()

        def advance(phase: str, n_done: int, n_rows: int, n_failed: int) -> None:
            nonlocal last
            if phase not in begun:
                shown.close()
                begun[phase] = shown.enter_context(show_progress(phase, n_rows, since=last)), n_done
            show, n_before = begun[phase]
            show(n_done, n_rows, n_failed, n_before)
            last = time.monotonic()

        yield advance


def _print_outcome(outcome: "Outcome") -> None:
    about, out = outcome.about, outcome.path
    if about["n_skipped"]:
        print(f"{about['n_skipped']} rows were skipped, and stay so in {out}; skipped.jsonl says why", file=sys.stderr)
    if not outcome.is_new:
        print(f"{out}: trained already ({about['n_steps']} steps); choose another folder to train again")
        return
    loss = "" if about["loss"] is None else f", loss {about['loss']}"  # none is logged in fewer steps than --log-steps
    print(f"{out}: {about['n_rows']} rows, {about['n_steps']} steps, {about['seconds']:.0f} s{loss}")

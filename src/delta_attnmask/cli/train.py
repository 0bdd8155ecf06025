"""`delta-attnmask train`: finetune a model on a selected part, with masked states as augmentation if wanted."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from delta_attnmask.cli.progress import Advance, show_progress
from delta_attnmask.cli.understood import tell_format
from delta_attnmask.errors import SettingsError
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.settings import PRESETS, Exclude, MaskSettings, Queries, Replacement, Tokens
from delta_attnmask.training.plan import Augment, LoraSettings, TrainingPlan
from delta_attnmask.training.settings import Schedule

_LEARNING_RATE, _LORA_LEARNING_RATE = 2e-5, 2e-4


def train(
    *,
    model: str,
    data: Path,
    images: Path | None = None,
    out: Path,
    augment: Augment = "none",
    probability: float = 0.5,
    schedule: Schedule = "constant",
    from_scores: Path | None = None,
    top_share: str = "100%",
    by: str | None = None,
    settings: str | None = None,
    queries: Queries | None = None,
    tokens: Tokens | None = None,
    fraction: float | None = None,
    block: int | None = None,
    replacement: Replacement | None = None,
    exclude: Exclude | None = None,
    neftune_alpha: float = 5.0,
    lora: bool = False,
    lora_rank: int = 16,
    lora_alpha: int = 32,
    lora_dropout: float = 0.0,
    merge: bool = False,
    only_language: bool = False,
    epochs: float = 1.0,
    max_steps: int | None = None,
    lr: float | None = None,
    warmup: float = 0.03,
    weight_decay: float = 0.0,
    batch_size: int = 8,
    accumulate: int = 1,
    gradient_checkpointing: bool = False,
    max_tokens: int | None = None,
    seed: int = 0,
    save_steps: int = 200,
    log_steps: int = 10,
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    workers: int | None = None,
    limit: int | None = None,
    format: str | None = None,
    allow_outside: bool = False,
    revision: str | None = None,
) -> int:
    """Finetune a model on the answers of a data set. Starting the same command again goes on where it stopped.

    OUT holds the model and its processor in the end, train.json (what was trained on what, and how long it took),
    metrics.jsonl, rows.parquet and skipped.jsonl (rows that can't be used, with reasons).

    Parameters
    ----------
    model
        Folder of a Hugging Face model, or its name on the hub.
    data
        Conversations, such as what `select` wrote.
    images
        Folder below which the rows' image paths lie.
    out
        Folder, made if missing.
    augment
        none; masked: each sample's most attended states are masked with a probability in each forward; random, dropout,
        neftune: controls; twice: top rows come twice in each epoch, plain and masked; twice-random, twice-dropout,
        twice-plain: its controls.
    probability
        With which a sample is masked in a forward; not used where rows come twice.
    schedule
        Of that probability over the training: constant, rising from 0 to it, or falling from it to 0.
    from_scores
        Run folder of `score`: only rows in the top share of its scores are masked or come twice.
    top_share
        That share, such as 50%, of the rows that are trained on.
    by
        Column to rank by, as for `select`.
    settings
        What is masked: paper, relative, or a folder that `calibrate` made. If not given, the settings of the run in
        --from-scores, else relative. Single options change what this gives.
    queries
        Whose attention counts: every token's, or of those that predict the answer; the preset's if not given.
    tokens
        Which tokens may be masked; the preset's if not given.
    fraction
        Share of those that is masked, 0 to 1; the preset's if not given.
    block
        Decoder block whose output is masked, the preset's if not given; negative counts from the end.
    replacement
        What a masked state becomes; the preset's if not given.
    exclude
        Tokens that are never masked: the first one (sink), or that and all special ones; the preset's if not given.
    neftune_alpha
        Strength of the noise with --augment neftune.
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
    only_language
        Leave the vision tower and the projector as they are.
    epochs
        How often each row comes.
    max_steps
        Make that many steps instead.
    lr
        Highest learning rate; 2e-5, with --lora 2e-4, if not given.
    warmup
        Share of the steps in which it rises from 0; after that it falls by a cosine.
    weight_decay
        Of AdamW.
    batch_size
        Rows in a forward, on each device.
    accumulate
        Forwards in a step.
    gradient_checkpointing
        Compute activations again in the backward pass: less memory, about a third slower.
    max_tokens
        Skip longer rows; nothing is ever truncated.
    seed
        Decides the order of rows, the adapters' start and what is masked.
    save_steps
        Steps between checkpoints, of which the last two are kept until the end.
    log_steps
        Steps between lines of metrics.jsonl.
    dtype
        Of the weights. auto: float32, computing in bfloat16 on GPUs that can; with --lora on such GPUs bfloat16.
    device
        auto, cpu or cuda.
    workers
        Processes that read batches ahead; 0 reads in the training process.
    limit
        Only the first rows.
    format
        Name of the data's format (`check --help` lists them); recognised by content if not given.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    revision
        Revision of a model on the hub.
    """
    single = {
        "queries": queries,
        "tokens": tokens,
        "fraction": fraction,
        "block": block,
        "replacement": replacement,
        "exclude": exclude,
    }
    if merge and not lora:
        raise SettingsError("merge: there is nothing to merge without --lora")
    if workers is not None and workers < 0:
        raise SettingsError(f"workers={workers}: expected 0 or more")
    mask = choose_mask(settings, from_scores, {name: value for name, value in single.items() if value is not None})
    plan = TrainingPlan(
        augment=augment,
        mask=mask,
        probability=probability,
        schedule=schedule,
        from_scores=from_scores,
        top_share=parse_top_share(top_share),
        by=by,
        neftune_alpha=neftune_alpha,
        lora=LoraSettings(rank=lora_rank, alpha=lora_alpha, dropout=lora_dropout) if lora else None,
        only_language=only_language,
        epochs=epochs,
        max_steps=max_steps,
        learning_rate=lr if lr is not None else (_LORA_LEARNING_RATE if lora else _LEARNING_RATE),
        warmup=warmup,
        weight_decay=weight_decay,
        batch_size=batch_size,
        accumulate=accumulate,
        gradient_checkpointing=gradient_checkpointing,
        max_tokens=max_tokens,
        seed=seed,
        save_steps=save_steps,
        log_steps=log_steps,
    )
    dataset = Dataset(data, images, image_limits=ImageLimits(allow_outside=allow_outside), format=format, limit=limit)
    tell_format(dataset)
    return _run(model, dataset, out, plan, dtype, device, revision, merge, workers)


def choose_mask(settings: str | None, from_scores: Path | None, overrides: dict[str, Any]) -> MaskSettings:
    """The mask of a preset, of a calibration, or of the run that the scores come from, with single options changed."""
    if settings is None and from_scores is not None:
        from delta_attnmask.artifacts import RunFolder

        known = MaskSettings().to_dict()
        run = RunFolder.open(from_scores).manifest.settings
        mask = MaskSettings.from_dict({name: value for name, value in run.items() if name in known})
    elif settings is None or settings in PRESETS:
        mask = PRESETS[settings or "relative"].mask
    elif Path(settings).exists():
        from delta_attnmask.calibrating.run import read_calibration

        mask = read_calibration(settings).settings
    else:
        raise SettingsError(f"settings={settings!r}: expected {', '.join(PRESETS)}, or a folder that `calibrate` made")
    return replace(mask, **overrides)


def parse_top_share(text: str) -> float:
    """Read `50%`."""
    from delta_attnmask.selection import Budget

    share = Budget.parse(text).share
    if share is None:
        raise SettingsError(f"top_share={text!r}: expected a share such as 50%")
    return float(share)


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


def _run(
    model: str,
    dataset: Dataset,
    out: Path,
    plan: TrainingPlan,
    dtype: Literal["auto", "float32", "bfloat16"],
    device: str,
    revision: str | None,
    merge: bool,
    workers: int | None,
) -> int:
    from delta_attnmask.modeling.devices import choose_device
    from delta_attnmask.modeling.load import load_model
    from delta_attnmask.training.run import train_dataset, training_dtype

    precision: Any = str(training_dtype(plan, choose_device(device))).removeprefix("torch.")
    loaded = load_model(model, dtype=precision if dtype == "auto" else dtype, device=device, revision=revision)
    with _phases() as advance:
        outcome = train_dataset(
            loaded,
            dataset,
            out,
            plan,
            merge=merge,
            n_workers=workers,
            command=tuple(sys.argv),
            on_row=partial(advance, "reading"),
            on_step=lambda n_done, n_rows: advance("training", n_done, n_rows, 0),
        )
    about = outcome.about
    if about["n_skipped"]:
        print(f"{about['n_skipped']} rows were skipped, and stay so in {out}; skipped.jsonl says why", file=sys.stderr)
    if not outcome.is_new:
        print(f"{out}: trained already ({about['n_steps']} steps); choose another folder to train again")
        return 0
    loss = "" if about["loss"] is None else f", loss {about['loss']}"  # none is logged in fewer steps than --log-steps
    print(f"{out}: {about['n_rows']} rows, {about['n_steps']} steps, {about['seconds']:.0f} s{loss}")
    return 0

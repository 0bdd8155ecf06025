"""`delta-attnmask score`: every row of a data set scored into a run folder."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from delta_attnmask.cli.chosen import choose_settings
from delta_attnmask.cli.outcome import tell_outcome
from delta_attnmask.cli.progress import RunBar, show_progress
from delta_attnmask.cli.understood import tell_format
from delta_attnmask.errors import SettingsError
from delta_attnmask.locations import beside
from delta_attnmask.manifest import WHOLE, Shard
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder
from delta_attnmask.settings import Exclude, MaskSettings, Order, Preset, Queries, Replacement, Tokens, require_positive


def score(
    *,
    model: str,
    data: Annotated[list[Path], Parameter(consume_multiple=True)],
    images: Path | None = None,
    out: Path,
    settings: str = "auto",
    queries: Queries | None = None,
    tokens: Tokens | None = None,
    fraction: float | None = None,
    block: int | None = None,
    replacement: Replacement | None = None,
    order: Order | None = None,
    exclude: Exclude | None = None,
    also: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    sweep: bool = False,
    embeddings: bool = False,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str = "auto",
    attention: Literal["auto", "plain", "tiled", "fused", "triton"] = "auto",
    compile: bool = False,
    batch_tokens: int = 8192,
    workers: int | None = None,
    limit: int | None = None,
    format: str | None = None,
    allow_outside: bool = False,
    revision: str | None = None,
    engine: Literal["local", "ray"] = "local",
    actors: int | None = None,
    gpus_per_actor: float | None = None,
    address: str | None = None,
    shard: str | None = None,
    unit_rows: int = 256,
    dry_run: bool = False,
) -> int:
    """Score every row of a data set into a run folder. Starting the same command again goes on where it stopped.

    Parameters
    ----------
    model
        Folder of a Hugging Face model, or its name on the hub.
    data
        Files (JSON, JSONL, parquet, arrow, WebDataset tars), a pattern such as 'shards/*.tar', a folder, or a mixture
        file in JSON or YAML; see docs/formats.md.
    images
        Folder below which the rows' image paths lie.
    out
        Run folder, made if missing: manifest.json and scores/unit-*.parquet.
    settings
        auto: calibrate on this data first, and keep the outcome in OUT; paper: the plainest reading of the paper;
        relative: the best preset; or a folder that `calibrate` made. Single options change what this gives; with auto
        they start from paper.
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
    order
        Which tokens are masked first, most if not given; least and random are controls.
    exclude
        Tokens that are never masked: the first one (sink), or that and all special ones; the preset's if not given.
    also
        Further scores from the same load: el2n, entropy, image_share and margin cost next to nothing; loss_alone,
        loss_without_image and loss_without_question a forward each. ifd, image_gain and irs, which `select` derives,
        stand for the one that they are made of.
    sweep
        Score the standard grid of settings too, into OUT/sweep: 26 of them, with random and least attended tokens as
        controls.
    embeddings
        Keep a vector of each row from the model's middle, into OUT/embeddings; `select` needs them for diversity,
        near duplicates and clusters.
    dtype
        auto: bfloat16 on a GPU (float16 on one older than Ampere), float32 on a CPU.
    device
        auto, cpu, cuda, cuda:1, mps, or balanced (spread over all GPUs by accelerate).
    attention
        Which code sums the attention; auto takes the fastest that the model and the device allow.
    compile
        Compile the model's blocks with torch.compile: some seconds at the start, faster after that.
    batch_tokens
        Upper bound of rows times longest row in a batch; halved when memory runs out.
    workers
        Processes that read images and encode; if not given, none on a CPU and up to 8 beside a GPU. 0 encodes in the
        process itself.
    limit
        Only the first rows.
    format
        Name of the data's format (`check --help` lists them); recognised by content if not given.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    revision
        Revision of a model on the hub.
    engine
        local: this process; ray: the workers of a Ray cluster, each with a model of its own. They write into OUT
        themselves, so it and the data must lie under the same path everywhere.
    actors
        With ray: how many; as many as there are GPUs for if not given, one without GPUs.
    gpus_per_actor
        With ray: 1 if not given and there are any; 0.5 lets two actors share one, 2 and --device balanced spread a
        model over two.
    address
        With ray: a running cluster, such as auto or 10.0.0.1:6379; if not given, one is started on this machine alone.
    shard
        I/N: do only every N-th unit, from the I-th on (I from 0), beside other processes that do the others in the same
        OUT; then `delta-attnmask merge OUT`.
    unit_rows
        Rows of a work unit, which is what a killed run loses at most.
    dry_run
        Say what would be done, try the first eight rows, and write nothing. Nothing is calibrated: where a run would,
        the preset paper is tried. Exit code 2 where no row can be scored.
    """
    single = {
        "queries": queries,
        "tokens": tokens,
        "fraction": fraction,
        "block": block,
        "replacement": replacement,
        "order": order,
        "exclude": exclude,
    }
    overrides: dict[str, Any] = {name: value for name, value in single.items() if value is not None}
    MaskSettings(**overrides)  # faults are told before anything large is imported or loaded
    require_positive(batch_tokens=batch_tokens, limit=limit, unit_rows=unit_rows, actors=actors)
    share = Shard.parse(shard) if shard is not None else WHOLE
    _refuse_contradictions(engine, share, dry_run, actors=actors, gpus_per_actor=gpus_per_actor, address=address)
    if not dry_run:
        RunFolder.refuse_foreign(out)
    dataset = FileRows(data, images, image_limits=ImageLimits(allow_outside=allow_outside), format=format, limit=limit)
    tell_format(dataset)

    from delta_attnmask.executing.actors import Cluster
    from delta_attnmask.modeling.load import compile_blocks, load_model
    from delta_attnmask.scoring.jobs import Recipe, Task, score_dataset, score_on_cluster
    from delta_attnmask.scoring.rivals import load_rivals
    from delta_attnmask.scoring.trial import dry_run_line
    from delta_attnmask.scoring.units import ScoringPlan
    from delta_attnmask.settings import STANDARD_GRID

    rivals = load_rivals([name for text in also or () for name in text.split(",") if name])
    loaded = None
    if engine == "local":
        loaded = load_model(model, dtype=dtype, device=device, revision=revision)
        if compile:
            compile_blocks(loaded.model)
    with beside(out) as folder:
        place = None if dry_run else folder
        chosen = choose_settings(
            settings, overrides, loaded, dataset, place, batch_tokens, is_alone=share.is_whole, attention=attention
        )
    plan = ScoringPlan(
        settings=chosen.mask,
        sweep=STANDARD_GRID if sweep else (),
        rivals=rivals,
        batch_tokens=batch_tokens,
        form=chosen.form,
        embed=embeddings,
        attention=attention,
        calibration=chosen.calibration,
        workers=workers,
    )
    if dry_run and loaded is not None:
        print(_describe_settings(chosen, is_stand_in=settings == "auto" and not overrides))
        print(dry_run_line(loaded, dataset, plan))
        return 0
    with show_progress("scoring", dataset.n_rows) as advance:
        bar = RunBar(advance)
        told: dict[str, Any] = {"on_check": _tell_check, "on_start": bar.show, "on_progress": bar.show}
        how: dict[str, Any] = {"unit_rows": unit_rows, "shard": share, "command": tuple(sys.argv)}
        if loaded is not None:
            run = score_dataset(loaded, dataset, out, plan, **how, **told, on_rows=bar.show_rows)
        else:
            recipe = Recipe(Task(dataset, str(out), plan, **how), model, dtype, device, revision, compile)
            run = score_on_cluster(recipe, Cluster(actors, gpus_per_actor, address), **told)
    return tell_outcome(run, bar.n_before)


def _refuse_contradictions(engine: str, shard: Shard, dry_run: bool, **of_ray: object) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in of_ray.items() if value is not None]
    if engine != "ray" and given:
        raise SettingsError(f"{', '.join(given)}: only for --engine ray")
    if engine == "ray" and not shard.is_whole:
        raise SettingsError("--shard: each shard is a process of its own; --engine ray shares the units out by itself")
    if engine == "ray" and dry_run:
        raise SettingsError("--dry-run tries one model in this process; leave out --engine ray")


def _describe_settings(chosen: Preset, is_stand_in: bool) -> str:
    """What a dry run tries; is_stand_in: a run would calibrate first and take what comes of that."""
    values = ", ".join(f"{name} {value}" for name, value in chosen.mask.to_dict().items())
    instead = "a run would calibrate on the data first; tried instead: preset paper, " if is_stand_in else ""
    return f"settings: {instead}{values}, ranked by {chosen.form}"


def _tell_check(line: str) -> None:
    print(f"model: {line}", file=sys.stderr)

"""`delta-attnmask score`, every row of a data set scored into a run folder; `merge`, what follows several processes."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from delta_attnmask.calibration import judge_calibration
from delta_attnmask.cli.options import (
    DATA,
    MACHINES,
    SCORES,
    SPEED,
    ComputeOptions,
    DataOptions,
    MaskOptions,
    ModelOptions,
    Strict,
    split_names,
)
from delta_attnmask.cli.terminal import print_check, print_data, print_outcome, print_verdict
from delta_attnmask.errors import SettingsError
from delta_attnmask.manifest import WHOLE, Shard
from delta_attnmask.progress import show_progress
from delta_attnmask.runs import RunFolder, merge_run
from delta_attnmask.settings import MAX_FAILED, WARM_ROWS, RoundsWanted, require_positive
from delta_attnmask.training.plan import Share


def score(
    *,
    model: ModelOptions,
    rows: DataOptions,
    out: Path,
    settings: str = "auto",
    mask: MaskOptions = MaskOptions(),
    rounds: Annotated[RoundsWanted, Parameter(group=SCORES)] = 0,
    warm_rows: Annotated[int, Parameter(group=SCORES)] = WARM_ROWS,
    also: Annotated[list[str] | None, Parameter(consume_multiple=True, group=SCORES)] = None,
    column: Annotated[list[str] | None, Parameter(consume_multiple=True, group=DATA)] = None,
    sweep: Annotated[bool, Parameter(group=SCORES)] = False,
    embeddings: Annotated[bool, Parameter(group=SCORES)] = False,
    max_failed: Share = MAX_FAILED,
    strict: Strict = False,
    compute: ComputeOptions = ComputeOptions(),
    compile: Annotated[bool | None, Parameter(group=SPEED)] = None,
    unit_rows: Annotated[int, Parameter(group=SPEED)] = 256,
    engine: Annotated[Literal["local", "ray"], Parameter(group=MACHINES)] = "local",
    actors: Annotated[int | None, Parameter(group=MACHINES)] = None,
    gpus_per_actor: Annotated[float | None, Parameter(group=MACHINES)] = None,
    address: Annotated[str | None, Parameter(group=MACHINES)] = None,
    shard: Annotated[str | None, Parameter(group=MACHINES)] = None,
) -> int:
    """Score every row of a data set into a run folder. Rerun the same command to resume.

    Args:
        out: Run folder, created if missing: manifest.json and scores/unit-*.parquet.
        settings: auto: calibrate on this data first and keep the result in OUT; relative: a preset that needs no
            calibration; paper: the plainest reading of the paper; or a folder that `calibrate` wrote. Single options
            override it.
        rounds: Calibrate in rounds, as `calibrate --rounds` does: 0, 1, 2 or auto.
        warm_rows: Rows that a copy of the model learns from in a round, at most.
        also: Further scores: el2n, entropy, image_share and margin cost next to nothing; loss_alone,
            loss_without_image and loss_without_question cost one forward each. ifd, image_gain and irs store what
            `select` derives them from.
        column: Columns of the data, such as topic, to keep beside the scores: `select --quota-by topic` balances them.
        sweep: Also score the standard grid of 26 settings into OUT/sweep, with random and least attended tokens as
            controls.
        embeddings: Store a vector of each row from the model's middle block in OUT/embeddings; `select` needs them
            for diversity, near duplicates and clusters.
        compile: Compile the model's blocks with torch.compile: a slower start, then faster; by default from 5,000 rows
            on an NVIDIA GPU.
        engine: local: this process; ray: the actors of a Ray cluster, each with its own model. They write into OUT
            themselves, so OUT and the data need the same path everywhere.
        actors: With ray: how many; by default as many as the GPUs allow, or one without GPUs.
        gpus_per_actor: With ray: by default 1 if there are any; 0.5 lets two actors share one, 2 with --device
            balanced spreads a model over two.
        address: With ray: a running cluster, such as auto or 10.0.0.1:6379; by default one is started on this
            machine alone.
        shard: I/N, with I from 0: do only every N-th unit, starting with the I-th, while other processes do the rest
            in the same OUT; then run `delta-attnmask merge OUT`.
        unit_rows: Rows in a work unit, the most that a killed run loses.
        max_failed: Share of the rows that may fail, such as 5%; if more do, the exit code is 1.
    """
    require_positive(batch_tokens=compute.batch_tokens, limit=rows.limit, unit_rows=unit_rows, actors=actors)
    share = Shard.parse(shard) if shard is not None else WHOLE
    _refuse_contradictions(engine, share, actors=actors, gpus_per_actor=gpus_per_actor, address=address)
    RunFolder.refuse_foreign(out)
    source = rows.open(split_names(column) or ())
    print_data(source)

    from delta_attnmask.executing.actors import Cluster
    from delta_attnmask.scorer import make_plan
    from delta_attnmask.scoring.jobs import score_dataset, score_on_cluster
    from delta_attnmask.scoring.worker import Recipe, Task

    loaded = model.load().loaded if engine == "local" else None
    plan, calibration = make_plan(
        loaded,
        source,
        out,
        settings=settings,
        changes=mask.given,
        rounds=rounds,
        warm_rows=warm_rows,
        also=split_names(also) or (),
        sweep=sweep,
        embeddings=embeddings,
        may_calibrate=share.is_whole,
        **asdict(compute),
    )
    plan = replace(plan, compile=compile)
    how: dict[str, Any] = {"unit_rows": unit_rows, "shard": share, "command": tuple(sys.argv)}
    with show_progress("scoring", source.n_rows) as advance:
        listeners: dict[str, Any] = {"on_progress": advance, "on_check": print_check}
        if loaded is not None:
            run = score_dataset(loaded, source, out, plan, **how, **listeners)
        else:
            task = Task(source, str(out), plan, **how)
            recipe = Recipe(task, model.model, model.dtype, model.device, model.revision)
            cluster = Cluster(actors, gpus_per_actor, address)
            run = score_on_cluster(recipe, cluster, **listeners)
    code = print_outcome(run, max_failed)
    is_of_it = settings == "auto" if calibration is None else calibration.covers(plan.form, run.manifest.settings)
    if code or not (is_of_it and share.is_whole):
        return code
    return print_verdict(judge_calibration(calibration), strict=strict)


def _refuse_contradictions(engine: str, shard: Shard, **of_ray: object) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in of_ray.items() if value is not None]
    if engine != "ray" and given:
        raise SettingsError(f"{', '.join(given)}: only for --engine ray")
    if engine == "ray" and not shard.is_whole:
        raise SettingsError("--engine ray distributes the units itself: leave out --shard")


def merge(run: Path, /) -> None:
    """Check that every row of a run is there exactly once, mark it complete, and merge its files into a few large ones.

    For runs made with --shard, and to make large runs of any kind faster to read. Rerun the same command to resume.

    Args:
        run: Run folder that `score` wrote.
    """
    done = merge_run(run)
    n_files = len(done.unit_files())
    print(
        f"{done.location}: {done.manifest.n_rows} rows, each once, in {n_files} file{'s' * (n_files != 1)}; "
        f"next: delta-attnmask select {done.location} --keep 20% --out FILE"
    )

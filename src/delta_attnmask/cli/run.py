"""`delta-attnmask run`: from data to a selection, and to the proof that it is better than chance."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from delta_attnmask.cli.options import ComputeOptions, DataOptions, Force, Json, ModelOptions, claim_json, write_json
from delta_attnmask.cli.terminal import SAYS_NO, print_data, print_table, print_verdict, printable, with_interval
from delta_attnmask.reporting.words import write_seconds
from delta_attnmask.running.plan import ModelSource, RunPlan, StageName
from delta_attnmask.settings import require_positive
from delta_attnmask.storage import read_object

if TYPE_CHECKING:
    from delta_attnmask.running.run import Run


def run(
    *,
    model: ModelOptions,
    data: DataOptions,
    out: Path,
    plan: Annotated[RunPlan, Parameter(name="*")] = RunPlan(),
    compute: ComputeOptions = ComputeOptions(),
    dry_run: bool = False,
    strict: bool = False,
    config: Path | None = None,
    json_file: Json = None,
    force: Force = False,
) -> int:
    """Check the data, set a test split aside, calibrate, score and select, with a random control and a report.

    With --prove, models are trained on both and compared on the test split. Each stage does what the command of its
    name does, and is skipped if it is done. Rerun the same command to resume.

    Exit code 0, or with --strict 3 if the verdict is to keep all data, or the proof that random rows do as well.

    Args:
        out: Folder for everything, created if missing. OUT/run.yaml records what was run.
        dry_run: Only list the stages, whether they are done, and how long each takes here.
        strict: Exit with 3 on a verdict that says no.
        config: YAML file with these options by their names, such as another run's run.yaml; the command line
            takes precedence.
    """
    require_positive(batch_tokens=compute.batch_tokens, limit=data.limit)
    source = data.open()
    claim_json(json_file, source.inputs, force=force)
    print_data(source)

    from delta_attnmask.running.run import Run

    begun = Run(source, out, plan, ModelSource(**asdict(model)), model.load, asdict(compute))
    if dry_run:
        _print_stages(begun)
        return 0
    begun.run(lambda stage, is_done: print_stage(stage, is_done))
    write_json(json_file, begun.findings)
    print_result(begun)
    return SAYS_NO if strict and begun.says_no else 0


def print_stage(stage: StageName, is_done: bool) -> None:
    print(f"{stage}: {'done already' if is_done else '...'}", flush=True)


def _print_stages(run: "Run") -> None:
    """A table of the stages, and of the seconds that are left."""
    seconds = run.estimate()
    lines = [
        (stage, *(("no", write_seconds(seconds[stage])) if stage in seconds else ("yes", None)))
        for stage in run.plan.stages
    ]
    print_table(f"Stages of {run.out}", ["stage", "done", "takes about"], lines)
    print(f"About {write_seconds(sum(seconds.values()))} are left. Nothing was written.")


def print_result(run: "Run") -> None:
    """What the run has made, and last the verdict."""
    if run.is_done("select"):
        kept = run.selection
        lines = [(name, run.path_of(name)) for name in ("kept", "random")]
        title = f"Kept {len(kept):,} of {kept.report['n_rows']:,} rows by {kept.column}, and drew as many at random"
        print_table(title, ["rows", "file"], lines)
    for path in sorted(run.out.glob("*/export.json")):
        print(printable(f"For the trainer: {read_object(path)['kept']['hint']}"))
    findings = run.findings
    if (proof := findings["proof"]) is not None:
        _print_proof(proof)
    if (page := run.out / "report.html").exists():
        print(printable(f"Report: {page}"))
    print_verdict(findings, strict=False)
    for sentence in [] if proof is None else proof["sentences"]:
        print(f"proof: {sentence}")


def _print_proof(proof: dict[str, Any]) -> None:
    lines = [
        (
            name,
            len(proof["folders"][name]),
            with_interval(one["exact"]),
            with_interval(one["loss"], is_share=False),
            with_interval(against["exact"]["pooled"], "+") if (against := proof["against"].get(name)) else None,
            with_interval(against["loss"]["pooled"], "+", is_share=False) if against else None,
        )
        for name, one in proof["models"].items()
    ]
    print_table(
        f"Asked {proof['n_test_rows']:,} test rows",
        ["trained on", "models", "exact answers", "loss", "kept minus this, exact", "kept minus this, loss"],
        lines,
    )

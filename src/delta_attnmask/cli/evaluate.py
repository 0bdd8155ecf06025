"""`delta-attnmask evaluate`: let a model answer a test set, and say how well."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from delta_attnmask.cli.options import DataOptions, ModelOptions
from delta_attnmask.cli.terminal import print_faults, print_table, with_interval
from delta_attnmask.progress import show_progress
from delta_attnmask.reading.faults import count_faults


def evaluate(
    *,
    model: ModelOptions,
    rows: DataOptions,
    out: Path,
    image_swap: Annotated[bool, Parameter(negative="--no-image-swap")] = True,
    max_new_tokens: int | None = None,
    seed: int = 0,
    batch_tokens: int = 8192,
    unit_rows: int = 256,
) -> int:
    """Answer every row of a test set, and measure the answers. Rerun the same command to resume.

    Asks for every answer of a conversation, after the data's own earlier answers.

    Args:
        out: Folder for the results, created if missing: predictions-*.parquet and evaluation.json.
        image_swap: Ask everything again with the images of another row of the same source: answers that are still right
            don't come from looking.
        max_new_tokens: Longest answer; by default 16 tokens more than the data's longest, at most 512.
        seed: Seed of the swapped images and the intervals.
        batch_tokens: Limit on answers times longest prompt and answer in a batch; halved when memory runs out.
        unit_rows: Rows in a work unit, the most that a killed run loses.
    """
    dataset = rows.open()

    from delta_attnmask.evaluating.evaluation import EvaluationPlan, evaluate_dataset
    from delta_attnmask.evaluating.summarising import failed_rows

    plan = EvaluationPlan(image_swap, max_new_tokens, seed, batch_tokens)
    loaded = model.load_model(model.model, model.revision)
    with show_progress("answering", dataset.n_rows) as advance:
        folder = evaluate_dataset(
            loaded,
            dataset,
            out,
            plan,
            unit_rows=unit_rows,
            command=tuple(sys.argv),
            on_progress=advance,
        )
    report = json.loads((folder.path / "evaluation.json").read_text(encoding="utf-8"))
    lines = [_line(name or "(none)", figures) for name, figures in report["sources"].items()]
    if lines:
        mean, pooled = report["mean_over_sources"], _line("pooled", report["pooled"])
        shares = [with_interval(mean.get(name)) for name in ("exact", "normalised", "exact_gain")]
        lines += [("mean over sources", pooled[1], *shares, None), pooled]
    columns = ["source", "answers", "exact", "normalised", "gain by the image", "loss"]
    print_table(f"{report['n_rows']:,} rows", columns, lines)
    print_faults(count_faults(failed_rows(folder.read())))
    if report["n_failed_rows"]:
        print(f"Failed rows aren't tried again in {out}; fix them and evaluate into another --out")
    if report["n_failed_rows"] == report["n_rows"]:
        print(f"delta-attnmask: {out}: no row could be answered", file=sys.stderr)
        return 2
    print(f"Wrote {folder.path / 'evaluation.json'}; next: delta-attnmask compare {folder.path} OTHER")
    return 0


def _line(name: str, figures: dict[str, Any]) -> tuple[object, ...]:
    swapped = figures["swapped"]
    shares = (figures["exact"], figures["normalised"], swapped and swapped["exact_gain"])
    return (name, figures["n_answers"], *map(with_interval, shares), round(figures["loss"], 3))

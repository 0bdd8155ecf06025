"""`delta-attnmask export-eval`: a test set for other evaluation harnesses."""

from pathlib import Path
from typing import Literal

from delta_attnmask.cli.options import DataOptions, Force
from delta_attnmask.cli.terminal import print_faults
from delta_attnmask.reading.faults import count_faults


def export_eval(
    *,
    to: Literal["lmms-eval", "vlmevalkit"],
    rows: DataOptions,
    out: Path,
    name: str = "delta_attnmask_test",
    max_new_tokens: int = 512,
    with_images_only: bool = False,
    force: Force = False,
) -> None:
    """Write a test set as a task of lmms-eval or a table of VLMEvalKit.

    Args:
        to: lmms-eval: NAME.yaml, utils.py and NAME.parquet, with whole conversations; vlmevalkit: NAME.tsv, with the
            first question of each row that has an image.
        out: Folder to write into.
        name: Name of the task: letters, digits and underscores.
        max_new_tokens: For lmms-eval: longest answer.
        with_images_only: For lmms-eval: leave out rows without an image, on which some of its models fail.
    """
    from delta_attnmask.evaluating.harnesses import export_lmms_eval, export_vlmevalkit

    dataset = rows.open()
    if to == "lmms-eval":
        found = export_lmms_eval(dataset, out, name, max_new_tokens, with_images_only=with_images_only, force=force)
        command = f"lmms-eval --include_path {out} --tasks {name} --model ..."
    else:
        found = export_vlmevalkit(dataset, out, name, force=force)
        command = f"LMUData={out} python run.py --data {name} --mode infer ..."
    print(f"Wrote {found.n_items:,} questions; next: {command}")
    if found.left_out:
        print(f"{len(found.left_out):,} rows are left out")
        print_faults(count_faults(found.left_out))

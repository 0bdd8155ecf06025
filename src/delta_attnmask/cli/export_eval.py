"""`delta-attnmask export-eval`: a test set for other evaluation harnesses."""

from collections import Counter
from pathlib import Path
from typing import Literal

from delta_attnmask.cli.tables import print_table
from delta_attnmask.reading.dataset import Dataset
from delta_attnmask.reading.images import ImageLimits


def export_eval(
    *,
    to: Literal["lmms-eval", "vlmevalkit"],
    data: Path,
    images: Path | None = None,
    out: Path,
    name: str = "delta_attnmask_test",
    turns: Literal["all", "last"] = "all",
    max_new_tokens: int = 512,
    with_images_only: bool = False,
    limit: int | None = None,
    format: str | None = None,
    allow_outside: bool = False,
) -> int:
    """Write a test set as a task of lmms-eval or a table of VLMEvalKit.

    Parameters
    ----------
    to
        lmms-eval: NAME.yaml, utils.py and NAME.parquet, with whole conversations; vlmevalkit: NAME.tsv, with the first
        question of each row that has an image.
    data
        Conversations with the right answers.
    images
        Folder below which the rows' image paths lie.
    out
        Folder to write into.
    name
        Of the task: letters, digits and underscores.
    turns
        For lmms-eval: every answer of a conversation, or the last one alone.
    max_new_tokens
        For lmms-eval: longest answer.
    with_images_only
        For lmms-eval: leave out rows without an image, on which some of its models fail.
    limit
        Only the first rows.
    format
        Name of the data's format (`check --help` lists them); recognised by content if not given.
    allow_outside
        Follow absolute image paths, and links that leave the image folder.
    """
    dataset = Dataset(data, images, image_limits=ImageLimits(allow_outside=allow_outside), format=format, limit=limit)
    if to == "lmms-eval":
        from delta_attnmask.evaluating.exporting.lmms_eval import export_lmms_eval

        found = export_lmms_eval(dataset, out, name, turns, max_new_tokens, with_images_only=with_images_only)
        print(f"Wrote {found.n_items:,} questions; next: lmms-eval --include_path {out} --tasks {name} --model ...")
    else:
        from delta_attnmask.evaluating.exporting.vlmevalkit import export_vlmevalkit

        found = export_vlmevalkit(dataset, out, name)
        print(f"Wrote {found.n_items:,} questions; next: LMUData={out} python run.py --data {name} --mode infer ...")
    if found.left_out:
        print_table(
            f"{len(found.left_out):,} rows left out", ["reason", "rows"], Counter(found.left_out.values()).items()
        )
    return 0

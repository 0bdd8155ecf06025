"""Complete runs over any data set, without a model: each row's delta is its position."""

from pathlib import Path

from delta_attnmask.manifest import Manifest
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import SampleScore


def score_all(dataset: FileRows, folder: Path) -> RunFolder:
    """The run that `score` would have made, but for the numbers."""
    manifest = Manifest(
        model="tiny",
        model_fingerprint="f",
        settings={"block": -2},
        data=str(dataset.path),
        images=str(dataset.images_root or ""),
        input=dataset.fingerprint,
        format=dataset.format_name,
        n_rows=len(dataset),
        unit_rows=len(dataset),
    )
    with RunFolder.start(folder, manifest) as run:
        scores = [
            SampleScore(
                row=record.row,
                id=record.id,
                key=record.key,
                source=record.source,
                status="failed" if record.reason else "ok",
                reason=record.reason,
                reason_code=record.reason_code,
                n_turns=sum(turn.role == "assistant" for turn in record.turns),
                n_images=len(record.images),
                delta=None if record.reason else float(record.row),
            )
            for record in dataset
        ]
        run.write_unit(0, scores)
        run.mark_complete()
    return run

"""Score tables for the tests of selection."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from delta_attnmask.manifest import Manifest
from delta_attnmask.records import Fingerprint
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import SampleScore, score_table


def make_scores(
    deltas: Sequence[float | None],
    sources: Sequence[str] = (),
    answer_types: Sequence[str] = (),
    questions: Sequence[str] = (),
    keys: Sequence[str] = (),
    loss: float = 1.0,
) -> list[SampleScore]:
    """One row for each delta; a row without one failed. What isn't given is the same for all rows."""

    def of(texts: Sequence[str], row: int) -> str:
        return texts[row] if texts else ""

    return [
        SampleScore(
            row=row,
            id="",
            key=of(keys, row) or str(row),
            source=of(sources, row),
            status="failed" if delta is None else "ok",
            reason="why" if delta is None else "",
            question=of(questions, row),
            answer_type=of(answer_types, row),
            n_turns=1,
            n_images=1,
            n_tokens=10,
            n_image_tokens=4,
            n_answer_tokens=row % 7 + 1,
            loss=None if delta is None else loss,
            masked_loss=None if delta is None else loss + delta,
            delta=delta,
        )
        for row, delta in enumerate(deltas)
    ]


def make_table(deltas: Sequence[float | None], *texts: Sequence[str], n_chunks: int = 1) -> pa.Table:
    """The scores as a table; in several chunks, as it comes from several shards."""
    scores = make_scores(deltas, *texts)
    step = -(-len(scores) // n_chunks)
    return pa.concat_tables([score_table(scores[start : start + step]) for start in range(0, len(scores), step)])


def write_run(folder: Path, scores: list[SampleScore], **settings: object) -> RunFolder:
    """A complete run folder with these scores, in units of 64 rows."""
    manifest = Manifest(
        model="tiny",
        model_fingerprint="f",
        settings={"block": -2, **settings},
        data=str(folder / "data.json"),
        images="",
        input=Fingerprint("a" * 64, 1),
        format="llava",
        n_rows=len(scores),
        unit_rows=64,
    )
    with RunFolder.start(folder, manifest) as run:
        for unit in run.units_to_do():
            rows = run.unit_rows(unit)
            run.write_unit(unit, scores[rows.start : rows.stop])
            run.add_pace(len(rows), 1.0)
        run.mark_complete()
    return run


def skewed_deltas(n_rows: int, n_sources: int = 4, seed: int = 0) -> tuple[list[float], list[str]]:
    """Deltas that are higher in later sources, and the sources."""
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, n_sources, n_rows)
    return (rng.normal(size=n_rows) + sources).tolist(), [f"s{source}" for source in sources]

"""Select from a run folder: its scores, its calibration and its embeddings. Nothing is written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.folders import UnitFile
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.candidates import Candidates, Indices, Vectors, find_candidates, stored_columns
from delta_attnmask.selecting.rules import read_columns
from delta_attnmask.selecting.selector import TEXT_COLUMNS, Background, count_sources, select_rows, with_columns
from delta_attnmask.selection import Budget, Selection


@dataclass(frozen=True)
class ScoredRun:
    """A run's table with what is known of it, as `select_rows` takes it."""

    table: pa.Table
    background: Background


def select_from_run(
    run: RunFolder,
    keep: str | float | Budget,
    *,
    by: str | None = None,
    quota_by: str | Sequence[str] = "auto",
    drop_duplicates: bool | Indices = False,
    **options: Any,
) -> Selection:
    """`select_rows` on a run folder, of which only the columns are read that the selection needs."""
    background = read_background(run)
    column = by or background.form or "delta"
    wanted = {"row", *TEXT_COLUMNS, *read_columns(quota_by), *stored_columns(column, run.schema)}
    if drop_duplicates is not True:
        wanted.discard("key")  # long, and no two are the same
    table = run.read_scores([name for name in run.schema.names if name in wanted], encoded=True)
    return select_rows(
        ScoredRun(table, background), keep, by=column, quota_by=quota_by, drop_duplicates=drop_duplicates, **options
    )


def candidates_of(selection: Selection, run: RunFolder, scores: pa.Table) -> Candidates:
    """What a selection chose from; scores: the table of its run."""
    found = find_candidates(scores, selection.column, partial(read_embeddings, run))
    distinct = found.take(np.flatnonzero(~np.isin(found.indices, selection.duplicates)))
    return with_columns(distinct, selection.quota_by, selection.details.get("n_clusters"))[0]


def sources_of(run: RunFolder, kept: Indices) -> dict[str, dict[str, int]]:
    """`count_sources` on the scores of a run."""
    return count_sources(run.read_scores(["row", "status", "source"], encoded=True), kept)


def read_background(run: RunFolder) -> Background:
    """What a run knows of its scores: settings, RUN/calibration.json if it has one, embeddings."""
    path = run.path / "calibration.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return Background.of(run.manifest.settings, report, partial(read_embeddings, run))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no calibration: {error}; remove it or calibrate again") from error


def read_embeddings(run: RunFolder, rows: Indices) -> Vectors:
    """The vectors of some input rows, in their order; `[n_rows, width]`, of length 1. Reads only the shards it needs.

    Raises SettingsError where the run has none, ArtifactError where one of the rows has none.
    """
    if "embeddings" not in run.manifest.settings:
        raise SettingsError(f"{run.path} has no embeddings; score into a new folder with --embeddings")
    order = np.argsort(rows, kind="stable")
    vectors: Vectors = np.empty((0, 0), dtype=np.float16)
    n_found = 0
    for file in run.unit_files("embeddings"):
        within = run.unit_rows(file.first, file.last)
        wanted = order[slice(*np.searchsorted(rows[order], (within.start, within.stop)))]
        if not len(wanted):
            continue
        held, found = _read_file(run, file)
        if not np.isin(rows[wanted], held).all():
            raise ArtifactError(f"{run.location}: {file.name} lacks rows that have a score")
        vectors = vectors if n_found else np.empty((len(rows), found.shape[1]), dtype=np.float16)
        vectors[wanted] = found[np.searchsorted(held, rows[wanted])]
        n_found += len(wanted)
    if n_found < len(rows):
        raise ArtifactError(f"{run.path / 'embeddings'} lacks {len(rows) - n_found} rows that have a score")
    return vectors


def _read_file(run: RunFolder, file: UnitFile) -> tuple[Indices, Vectors]:
    """The rows that a file holds, ascending, and their vectors."""
    table = run.read_files([file])
    column = table["embedding"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False)
    return table["row"].to_numpy(), vectors.reshape(len(table), column.type.list_size)

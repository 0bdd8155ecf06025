"""Put the many small files of a run into few large ones. Killed at any moment, it loses nothing and can start again.

A merged file is in place, checked, before the files that it replaces are removed; until they are, readers take the
merged one and leave them aside.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.errors import ArtifactError
from delta_attnmask.parts import Part, find_parts, merged_path
from delta_attnmask.remote import RemoteFolder, as_path, as_url, replace_remote
from delta_attnmask.storage import write_atomically

MAX_BYTES = 128 << 20
MAX_UNITS = 1000
_ROW_GROUP = 1 << 17


def merge_run(path: str | Path, on_progress: Callable[[int, int], None] = lambda n_done, n_rows: None) -> RunFolder:
    """Check that every row is there exactly once, merge the files, and mark the run complete.

    on_progress is given how many rows are merged and how many there are; where rows have several tables, each counts
    for its share.
    Raises ArtifactError where rows are missing or doubled, and where a process still works on the run.
    """
    if (url := as_url(path)) is not None:
        fetched = RunFolder.open(url)
        merge_run(fetched.path, on_progress)
        replace_remote(RemoteFolder(url), fetched.path)
        return fetched
    path = as_path(path)
    with RunFolder.start(path, RunFolder.open(path).manifest) as run:
        run.require_all()
        kinds = ["scores", *_side_tables(path)]
        n_done = 0
        for kind in kinds:
            for group in _groups(run.parts(kind)):
                _merge(run, kind, group)
                n_done += sum(len(run.unit_rows(part.first)) for part in group)
                on_progress(n_done // len(kinds), run.manifest.n_rows)
            _remove_covered(path / kind)
        run.read_scores(["row"])
        run.mark_complete()
        return run


def _side_tables(path: Path) -> list[str]:
    return sorted(
        folder.name for folder in path.iterdir() if folder.is_dir() and folder.name != "scores" and find_parts(folder)
    )


def _groups(parts: Sequence[Part], max_bytes: int = MAX_BYTES, max_units: int = MAX_UNITS) -> Iterator[list[Part]]:
    """Unit files that follow each other, up to a size; what is merged already stays as it is."""
    group: list[Part] = []
    n_bytes = 0
    for part in parts:
        size = part.path.stat().st_size
        is_next = not part.is_merged and (not group or part.first == group[-1].last + 1)
        if group and not (is_next and n_bytes + size <= max_bytes and len(group) < max_units):
            yield group
            group, n_bytes = [], 0
        if not part.is_merged:
            group.append(part)
            n_bytes += size
    if group:
        yield group


def _merge(run: RunFolder, kind: str, group: Sequence[Part]) -> None:
    if len(group) < 2:
        return
    first, last = group[0].first, group[-1].last
    try:
        table = _concat([pq.read_table(part.path) for part in group])
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(f"{run.path / kind}: units {first} to {last} can't be read: {error}") from error
    rows = range(run.unit_rows(first).start, run.unit_rows(last).stop)
    found = table["row"].to_numpy()
    is_whole = kind != "scores" or np.array_equal(found, np.arange(rows.start, rows.stop))
    if not is_whole or (len(found) and not rows.start <= found.min() <= found.max() < rows.stop):
        raise ArtifactError(f"{run.path / kind}: units {first} to {last} don't hold the rows {rows}")
    with write_atomically(merged_path(run.path / kind, first, last)) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP)
    for part in group:
        part.path.unlink(missing_ok=True)


def _concat(tables: list[pa.Table]) -> pa.Table:
    """Tables behind each other; one without rows may have been written before anybody knew how wide its lists are."""
    return pa.concat_tables([table for table in tables if len(table)] or tables[:1])


def _remove_covered(folder: Path) -> None:
    """Remove unit files that a merged one holds: what a `merge` left that was killed."""
    merged = [part for part in find_parts(folder) if part.is_merged]
    covered = {unit for part in merged for unit in part.units}
    for part in find_parts(folder):
        if not part.is_merged and part.first in covered:
            part.path.unlink(missing_ok=True)

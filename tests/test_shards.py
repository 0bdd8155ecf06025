"""Several processes on one run folder without a coordinator, and the merge at the end."""

import errno
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.manifest import WHOLE, Manifest, Shard
from delta_attnmask.records import Fingerprint
from delta_attnmask.runs import Pace, RunFolder, merge_run
from delta_attnmask.scores import SampleScore

N_ROWS, UNIT_ROWS, N_UNITS = 58, 5, 12


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        model="tiny",
        model_fingerprint="f" * 64,
        settings={"block": -2},
        data="data.json",
        images="",
        input=Fingerprint("a" * 64, 100),
        format="llava",
        n_rows=N_ROWS,
        unit_rows=UNIT_ROWS,
    )


def score_of(row: int) -> SampleScore:
    return SampleScore(row=row, id=str(row), key=f"k{row}", source="s", status="ok", delta=row / 2)


def do_units(run: RunFolder, n_units: int | None = None) -> None:
    for unit in run.units_to_do()[:n_units]:
        rows = run.unit_rows(unit)
        side = pa.table({"row": [*rows][::2], "value": [1.0 * row for row in rows][::2]})
        run.write_unit(unit, [score_of(row) for row in rows], sweep=side)
        run.add_pace(len(rows), 1.0)


def do_shard(path: Path, manifest: Manifest, shard: Shard) -> None:
    with RunFolder.start(path, manifest, shard) as run:
        do_units(run)


@pytest.fixture
def done(tmp_path: Path, manifest: Manifest) -> Path:
    for index in range(3):
        do_shard(tmp_path / "run", manifest, Shard(index, 3))
    return tmp_path / "run"


def tables(path: Path) -> tuple[pa.Table, pa.Table | None]:
    run = RunFolder.open(path)
    return run.read_scores(), run.read_side("sweep")


def files(path: Path, kind: str = "scores") -> list[str]:
    return sorted(file.name for file in (path / kind).iterdir())


# Who does what


@pytest.mark.parametrize("text", ["", "3", "3/3", "-1/3", "1/0", "a/b", "1/2/3", "0.5/2", " 0/2"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(SettingsError, match="expected I/N"):
        Shard.parse(text)


def test_every_unit_belongs_to_one_shard() -> None:
    shards = [Shard.parse(f"{index}/5") for index in range(5)]
    assert all(sum(shard.owns(unit) for shard in shards) == 1 for unit in range(23))
    assert Shard.parse("0/1") == WHOLE
    assert WHOLE.tag == ""


def test_shards_side_by_side_make_the_table_of_one_run(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "run"
    with RunFolder.start(path, manifest, Shard(0, 3)) as first, RunFolder.start(path, manifest, Shard(2, 3)) as third:
        assert first.units_to_do() == [0, 3, 6, 9]
        assert third.units_to_do() == [2, 5, 8, 11]
        do_units(third)
        do_units(first, 2)
        assert first.units_to_do() == [6, 9]
    for index in range(3):
        do_shard(path, manifest, Shard(index, 3))
    assert RunFolder.open(path).pace.n_rows == N_ROWS
    assert not RunFolder.open(path).is_complete
    with RunFolder.start(tmp_path / "whole", manifest) as whole:
        do_units(whole)
        whole.mark_complete()
    assert tables(path) == tables(tmp_path / "whole")


def test_the_pace_of_shards_is_that_of_the_slowest(tmp_path: Path, manifest: Manifest) -> None:
    with RunFolder.start(tmp_path, manifest) as run:
        for index, seconds in enumerate([2.0, 5.0]):
            text = f'{{"n_rows": 10, "seconds": {seconds}}}'
            (tmp_path / f"pace-{index}-of-2.json").write_text(text)
        assert run.pace == Pace(20, 5.0)
        do_units(run)
    assert RunFolder.open(tmp_path).pace == Pace(20 + N_ROWS, 5.0 + N_UNITS)


# Locks and left-overs


def refused(message: str, path: Path, manifest: Manifest, shard: Shard = WHOLE) -> None:
    with pytest.raises(ArtifactError, match=message), RunFolder.start(path, manifest, shard):
        pytest.fail("started")


def test_who_may_work_beside_whom(tmp_path: Path, manifest: Manifest) -> None:
    with RunFolder.start(tmp_path, manifest, Shard(0, 2)):
        refused("in use by process", tmp_path, manifest, Shard(0, 2))
        refused("in use by process", tmp_path, manifest)
        with pytest.raises(ArtifactError, match="in use"):
            merge_run(tmp_path)
        with RunFolder.start(tmp_path, manifest, Shard(1, 2)), RunFolder.start(tmp_path, manifest, Shard(0, 4)):
            pass
    with RunFolder.start(tmp_path, manifest):
        refused("in use by process", tmp_path, manifest, Shard(1, 2))


def test_a_shard_of_another_run_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    with RunFolder.start(tmp_path, manifest, Shard(0, 2)):
        refused("model_fingerprint", tmp_path, replace(manifest, model_fingerprint="e"), Shard(1, 2))
        with pytest.raises(ArtifactError, match="unit_rows: 5 there, 6 now"):
            RunFolder.join(tmp_path, replace(manifest, unit_rows=6))


def test_of_many_that_begin_at_once_one_writes_the_manifest(tmp_path: Path, manifest: Manifest) -> None:
    def begin(idx: int) -> str:
        with RunFolder.start(tmp_path, replace(manifest, created=str(idx)), Shard(idx, 8)) as run:
            return run.manifest.created

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(begin, range(8)))
    assert found == {RunFolder.open(tmp_path).manifest.created}


def test_a_shard_removes_what_it_left_itself_and_nothing_of_others(tmp_path: Path, manifest: Manifest) -> None:
    do_shard(tmp_path, manifest, Shard(0, 12))
    own = tmp_path / "scores" / ".unit-00001.parquet-1-of-12.0123abcd.tmp"
    others = [
        tmp_path / "scores" / ".unit-00002.parquet-2-of-12.0123abcd.tmp",
        tmp_path / "scores" / ".unit-00011.parquet-11-of-12.0123abcd.tmp",
        tmp_path / ".pace.json.0123abcd.tmp",
    ]
    for file in (own, *others):
        file.write_bytes(b"half")
    do_shard(tmp_path, manifest, Shard(1, 12))
    assert not own.exists()
    assert all(file.exists() for file in others)
    with RunFolder.start(tmp_path, manifest):
        assert not any(file.exists() for file in others)


def test_file_systems_without_locks(tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(code: int, *_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", partial(fail, errno.ENOLCK))
    with RunFolder.start(tmp_path, manifest, Shard(0, 2)) as run:
        do_units(run)
        left = tmp_path / "scores" / ".unit-00001.parquet-1-of-2.0123abcd.tmp"
        left.write_bytes(b"half")
        do_shard(tmp_path, manifest, Shard(1, 2))
        assert left.exists()  # nobody knows whether its owner still runs
        refused("model_fingerprint", tmp_path, replace(manifest, model_fingerprint="e"), Shard(1, 2))
    assert tables(tmp_path)[0]["row"].to_pylist() == [*range(N_ROWS)]


def test_locks_that_fail_for_another_reason(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    refused("can't be locked: Input/output error", tmp_path, manifest)


# Merging


def test_a_merged_run_reads_the_same(done: Path) -> None:
    before = tables(done)
    run = merge_run(done)
    assert files(done) == files(done, "sweep") == ["merged-00000-00011.parquet"]
    assert tables(done) == before
    assert run.is_complete
    assert run.units_to_do() == []
    assert RunFolder.open(done).pace.n_rows == N_ROWS
    with RunFolder.start(done, run.manifest) as again:
        assert again.units_to_do() == []
    merge_run(done)
    assert tables(done) == before


def test_bytes_bound_a_merged_file(done: Path) -> None:
    sizes = [path.stat().st_size for path in sorted((done / "scores").iterdir())]
    merge_run(done, max_bytes=1)
    assert len(files(done)) == N_UNITS
    merge_run(done, max_bytes=3 * max(sizes))
    merged = RunFolder.open(done).unit_files()
    assert [unit for file in merged for unit in file.units] == [*range(N_UNITS)]
    assert all(sum(sizes[unit] for unit in file.units) <= 3 * max(sizes) for file in merged)
    assert 4 <= len(merged) < 12
    merge_run(done)  # what is merged stays as it is
    assert RunFolder.open(done).unit_files() == merged


def test_an_incomplete_run_is_not_merged(tmp_path: Path, manifest: Manifest) -> None:
    do_shard(tmp_path, manifest, Shard(1, 2))
    with pytest.raises(ArtifactError, match=r"6 of 12 units are missing \(0, 2, 4, 6, 8, …\)"):
        merge_run(tmp_path)
    assert len(files(tmp_path)) == 6
    assert not RunFolder.open(tmp_path).is_complete


@pytest.mark.parametrize("other", [2, 4])
def test_rows_that_are_doubled_are_noticed(done: Path, other: int) -> None:
    run = RunFolder.open(done)
    run.unit_path(3).write_bytes(run.unit_path(other).read_bytes())
    with pytest.raises(ArtifactError, match="expected the rows 0 to 57, each once"):
        merge_run(done)
    assert len(files(done)) == N_UNITS
    assert not run.is_complete


@pytest.mark.parametrize("kind", ["scores", "sweep"])
def test_broken_files_are_told(done: Path, kind: str) -> None:
    RunFolder.open(done).unit_path(3, kind).write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="can't be read"):
        merge_run(done)
    assert not RunFolder.open(done).is_complete


class Stop(BaseException):
    """As if the process were killed."""


def stop_at(n: int, counter: "count[int]", function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if next(counter) == n:
            raise Stop
        return function(*args, **kwargs)

    return call


def test_a_merge_that_is_killed_anywhere_loses_nothing(done: Path) -> None:
    before = tables(done)
    limit = 4 * max(path.stat().st_size for path in done.glob("*/unit-*"))
    n_kills = 0
    for n in range(0, 60, 3):
        with pytest.MonkeyPatch.context() as patched:
            counter = count()
            for owner, name in ((pq, "write_table"), (Path, "replace"), (os, "remove")):
                patched.setattr(owner, name, stop_at(n, counter, getattr(owner, name)))
            try:
                merge_run(done, max_bytes=limit)
            except Stop:
                n_kills += 1
        assert tables(done) == before
    assert n_kills >= 4
    merge_run(done, max_bytes=limit)
    assert tables(done) == before
    for kind in ("scores", "sweep"):
        assert files(done, kind)
        assert all(name.startswith("merged-") for name in files(done, kind))

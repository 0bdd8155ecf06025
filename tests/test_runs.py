"""A run folder: the same run goes on, another is refused, nothing half-written is ever seen."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delta_attnmask.errors import ArtifactError, DataError
from delta_attnmask.manifest import Manifest, collect_versions
from delta_attnmask.records import Fingerprint
from delta_attnmask.runs import RunFolder, merge_run
from delta_attnmask.scores import SampleScore, score_table
from delta_attnmask.storage import write_atomically, write_text_atomically

N_ROWS, UNIT_ROWS = 25, 10


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        model="tiny",
        model_fingerprint="f" * 64,
        settings={"block": -2, "fraction": 0.2, "sweep": [1, 2]},
        data="/somewhere/data.json",
        images="",
        input=Fingerprint("a" * 64, 100),
        format="llava",
        n_rows=N_ROWS,
        unit_rows=UNIT_ROWS,
        extra_columns=("el2n",),
        command=("score", "--model", "tiny"),
    )


def make_scores(rows: range) -> list[SampleScore]:
    return [
        SampleScore(row=row, id="", key=str(row), source="s", status="ok", delta=row / 2, extra={"el2n": 1.0})
        if row % 7
        else SampleScore(
            row=row, id="é", key=str(row), source="", status="failed", reason="why", reason_code="template"
        )
        for row in rows
    ]


def write_all(run: RunFolder) -> None:
    for unit in run.units_to_do():
        run.write_unit(unit, make_scores(run.unit_rows(unit)))


def test_a_run_from_begin_to_end(tmp_path, manifest):
    with RunFolder.start(tmp_path / "deep" / "run", manifest) as run:
        assert [run.unit_rows(unit) for unit in range(run.n_units)] == [range(10), range(10, 20), range(20, 25)]
        assert run.units_to_do() == [0, 1, 2]
        write_all(run)
        assert not run.is_complete
        run.mark_complete()
    run = RunFolder.open(tmp_path / "deep" / "run")
    assert run.is_complete
    assert run.finished_units() == {0, 1, 2}
    table = run.read_scores()
    assert table["row"].to_pylist() == list(range(N_ROWS))
    assert table["el2n"].to_pylist()[:2] == [None, 1.0]
    assert table["reason"].to_pylist()[7] == "why"
    assert run.read_scores(["delta"]).column_names == ["delta"]
    assert sorted(path.name for path in run.path.iterdir()) == ["complete.json", "lock", "manifest.json", "scores"]


def test_the_manifest_comes_back_equal(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest):
        pass
    found = RunFolder.open(tmp_path).manifest
    assert found == manifest
    assert found.differences(manifest) == []
    assert found.versions["delta-attnmask"] == collect_versions()["delta-attnmask"]


def test_going_on_where_it_stopped(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest) as run:
        run.write_unit(1, make_scores(run.unit_rows(1)))
    elsewhere = replace(manifest, data="/moved.json", model="/models/tiny", command=(), created="now", versions={})
    with RunFolder.start(tmp_path, elsewhere) as run:
        assert run.units_to_do() == [0, 2]
        assert run.manifest == manifest


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"model_fingerprint": "e"}, "model_fingerprint: 'fff"),
        ({"settings": {"block": -3, "fraction": 0.2, "sweep": [1, 2]}}, "settings.block: -2 there, -3 now"),
        ({"settings": {"block": -2, "fraction": 0.2}}, "settings.sweep: [1, 2] there, None now"),
        ({"input": Fingerprint("b" * 64, 100)}, "input.sha256"),
        ({"input": Fingerprint("a" * 64, 101)}, "input.n_bytes: 100 there, 101 now"),
        ({"format": "messages"}, "format: 'llava' there, 'messages' now"),
        ({"n_rows": 7}, "n_rows: 25 there, 7 now"),
        ({"unit_rows": 7}, "unit_rows: 10 there, 7 now"),
        ({"extra_columns": ()}, "extra_columns: ('el2n',) there, () now"),
    ],
)
def test_another_run_is_refused_and_the_difference_named(tmp_path, manifest, change, difference):
    with RunFolder.start(tmp_path, manifest):
        pass
    with pytest.raises(ArtifactError) as caught, RunFolder.start(tmp_path, replace(manifest, **change)):
        pytest.fail("started")
    assert difference in str(caught.value)


def test_all_differences_are_named_at_once(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest):
        pass
    other = replace(manifest, format="x", n_rows=1)
    with pytest.raises(ArtifactError, match=r"format: .*; n_rows: "), RunFolder.start(tmp_path, other):
        pass


def test_a_folder_with_other_things_is_refused(tmp_path, manifest):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ArtifactError, match=r"thesis\.tex"), RunFolder.start(tmp_path, manifest):
        pass
    with pytest.raises(ArtifactError, match="holds no run"):
        RunFolder.open(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_a_folder_that_cannot_be_made(tmp_path, manifest):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="can't be"), RunFolder.start(tmp_path / "file" / "run", manifest):
        pass


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1}', "\udcff"])
def test_a_manifest_that_is_none(tmp_path, manifest, content):
    (tmp_path / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError, match=r"manifest\.json can't be read"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("rows", [range(9), range(11), range(10, 20), [0, *range(9)]])
def test_a_unit_needs_exactly_its_rows(tmp_path, manifest, rows):
    with RunFolder.start(tmp_path, manifest) as run:
        with pytest.raises(ArtifactError, match="unit 0 needs exactly the rows"):
            run.write_unit(0, make_scores(rows))
        assert run.units_to_do() == [0, 1, 2]


def test_scores_in_any_order_are_stored_in_that_of_the_input(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest) as run:
        run.write_unit(0, make_scores(range(10))[::-1])
        assert pq.read_table(run.unit_path(0))["row"].to_pylist() == list(range(10))


def test_side_tables_are_in_place_before_the_scores(tmp_path, manifest):
    side = pa.table({"row": [1]})
    with RunFolder.start(tmp_path, manifest) as run:
        run.write_unit(0, make_scores(range(10)), sweep=side)
        assert pq.read_table(run.unit_path(0, "sweep")).equals(side)
        no_number = [replace(score, delta="none") for score in make_scores(range(10, 20))]
        with pytest.raises(pa.ArrowException):
            run.write_unit(1, no_number, sweep=side)
        assert run.unit_path(1, "sweep").exists()
        assert run.units_to_do() == [1, 2]


def test_an_incomplete_run_is_no_table(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest) as run:
        run.write_unit(1, make_scores(run.unit_rows(1)))
        with pytest.raises(ArtifactError, match="2 of 3 units are missing"):
            run.mark_complete()
    with pytest.raises(ArtifactError, match="2 of 3 units are missing"):
        RunFolder.open(tmp_path).read_scores()


def test_wrong_shards_are_noticed(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest) as run:
        write_all(run)
    shard = run.unit_path(1)
    good = shard.read_bytes()
    shard.write_bytes(run.unit_path(0).read_bytes())
    with pytest.raises(ArtifactError, match="each once and in order"):
        run.read_scores()
    for bad in (b"", good[:-20], b"x" * 100):
        shard.write_bytes(bad)
        with pytest.raises(ArtifactError, match="can't be read"):
            run.read_scores()


def test_unknown_column(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest) as run:
        write_all(run)
    with pytest.raises(ArtifactError, match="no column 'x'; it has row, id"):
        run.read_scores(["x"])


def test_two_at_once(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest):
        with (
            pytest.raises(ArtifactError, match=f"in use by process {os.getpid()} on "),
            RunFolder.start(tmp_path, manifest),
        ):
            pytest.fail("started")
        assert RunFolder.open(tmp_path).units_to_do() == [0, 1, 2]
    with RunFolder.start(tmp_path, manifest):
        pass


HOLDER = """
import sys, time
from delta_attnmask.manifest import Manifest
from delta_attnmask.runs import RunFolder
from pathlib import Path
manifest = Manifest.from_json(Path(sys.argv[2]).read_text())
with RunFolder.start(sys.argv[1], manifest) as run:
    (run.path / "scores").mkdir()
    (run.path / "scores" / ".unit-00000.parquet.aa.tmp").write_bytes(b"half")
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_no_lock_and_no_half_file(tmp_path, manifest):
    (tmp_path / "manifest").write_text(manifest.to_json())
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run"), str(tmp_path / "manifest")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ArtifactError, match=f"process {holder.pid} "),
            RunFolder.start(tmp_path / "run", manifest),
        ):
            pytest.fail("started")
        holder.send_signal(signal.SIGKILL)
    with RunFolder.start(tmp_path / "run", manifest) as run:
        assert list((run.path / "scores").iterdir()) == []
        assert run.units_to_do() == [0, 1, 2]


def test_killed_before_the_manifest_was_there(tmp_path, manifest):
    (tmp_path / "lock").write_text("process 1 on there\n")
    (tmp_path / ".manifest.json.aa.tmp").write_text("{")
    with RunFolder.start(tmp_path, manifest) as run:
        assert run.units_to_do() == [0, 1, 2]
    assert not list(tmp_path.glob(".*"))


def write_half(path: Path, error: BaseException) -> None:
    with write_atomically(path) as file:
        file.write(b"half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_failed_write_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "x.json"
    write_text_atomically(path, "old")
    with pytest.raises(ArtifactError if isinstance(error, OSError) else type(error)):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_synced_and_then_replaced_never_written_over(tmp_path, monkeypatch):
    path, calls = tmp_path / "x.json", []
    write_text_atomically(path, "old")
    (tmp_path / "still_old.json").hardlink_to(path)
    fsync, replace_path = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("sync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("replace"), replace_path(self, to))[1])
    write_text_atomically(path, "new")
    assert calls == ["sync", "replace", "sync"]
    assert path.read_text() == "new"
    assert (tmp_path / "still_old.json").read_text() == "old"


def test_the_folder_of_a_file_is_made(tmp_path):
    write_text_atomically(tmp_path / "a" / "b.json", "é")
    assert (tmp_path / "a" / "b.json").read_text(encoding="utf-8") == "é"
    with pytest.raises(ArtifactError, match="can't be written"):
        write_text_atomically(tmp_path / "a" / "b.json" / "c.json", "")


def test_units_beyond_five_digits(tmp_path, manifest):
    with RunFolder.start(tmp_path, replace(manifest, n_rows=100_001, unit_rows=1)) as run:
        (tmp_path / "scores").mkdir()
        for unit in (3, 100_000):
            run.unit_path(unit).write_bytes(b"")
        assert run.finished_units() == {3, 100_000}


def test_the_manifest_is_plain_json(manifest):
    assert json.loads(manifest.to_json())["settings"]["block"] == -2


def test_failed_rows_are_read_before_the_run_is_complete(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest) as run:
        for unit in (2, 1):
            run.write_unit(unit, make_scores(run.unit_rows(unit)))
        assert run.read_failed().to_pylist() == [
            {"row": row, "reason_code": "template", "reason": "why"} for row in (14, 21)
        ]


def test_only_a_run_without_scores_is_withdrawn(tmp_path, manifest):
    with RunFolder.start(tmp_path, manifest) as run:
        run.withdraw()
    assert not (tmp_path / "manifest.json").exists()
    with RunFolder.start(tmp_path, replace(manifest, format="messages")) as run:
        run.write_unit(1, make_scores(run.unit_rows(1)))
        run.withdraw()
    assert RunFolder.open(tmp_path).finished_units() == {1}


def test_hashes_that_differ_are_shown_by_their_first_digits(manifest):
    (said,) = manifest.differences(replace(manifest, input=Fingerprint("b" * 64, 100)))
    assert said == f"input.sha256: '{'a' * 12}…' there, '{'b' * 12}…' now"


# Rows that were scored in memory


def test_a_table_in_memory_becomes_the_folder_of_a_run(tmp_path, manifest):
    manifest = replace(manifest, data="", images="")
    side = pa.table({"row": [0, 11, 11, 24], "value": [0.0, 1.0, 2.0, 3.0]})
    table = score_table(make_scores(range(N_ROWS)), ("el2n",))
    with RunFolder.start(tmp_path, manifest) as run:
        run.write_all(table.select(table.column_names[::-1]), {"sweep": side})
    found = RunFolder.open(tmp_path)
    assert found.is_complete
    assert found.read_scores() == table
    assert found.read_side("sweep") == side
    assert [file.units for file in found.unit_files()] == [range(3)]
    with RunFolder.start(tmp_path, manifest) as run:
        assert run.units_to_do() == []
    assert merge_run(tmp_path).read_scores() == table
    with pytest.raises(DataError, match="scored in memory"):
        found.manifest.require_data()
    assert replace(manifest, data="x.json").require_data() == "x.json"


def test_a_table_in_memory_must_be_that_of_the_run(tmp_path, manifest):
    table = score_table(make_scores(range(N_ROWS)), ("el2n",))
    with RunFolder.start(tmp_path, manifest) as run:
        for other, message in [
            (table.drop_columns("el2n"), "expected the columns"),
            (table.slice(1), "expected the rows 0 to 24"),
            (table.take([*range(24), 23]), "expected the rows 0 to 24"),
        ]:
            with pytest.raises(ArtifactError, match=message):
                run.write_all(other, {})
        assert run.units_to_do() == [0, 1, 2]


def test_a_file_is_no_folder(tmp_path, manifest):
    (tmp_path / "run").write_text("")
    with pytest.raises(ArtifactError, match="is a file; choose a folder"):
        RunFolder.refuse_foreign(tmp_path / "run")
    with pytest.raises(ArtifactError, match="is a file"), RunFolder.start(tmp_path / "run", manifest):
        pass


def test_a_run_of_no_rows(tmp_path, manifest):
    with RunFolder.start(tmp_path, replace(manifest, n_rows=0)) as run:
        run.write_all(run.schema.empty_table(), {})
    assert len(RunFolder.open(tmp_path).read_scores()) == 0

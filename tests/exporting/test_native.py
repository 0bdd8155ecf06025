"""What is exported are the input's own bytes, and the note tells how they were chosen."""

import json
from pathlib import Path

import pytest

from delta_attnmask.errors import ArtifactError, DataError, SettingsError
from delta_attnmask.exporting.run_export import export_selection
from delta_attnmask.manifest import Manifest
from delta_attnmask.reading.jsonfile import iter_rows
from delta_attnmask.reading.rows import FileRows, Place
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import SampleScore
from delta_attnmask.selecting.selector import select_rows
from tests.reading.builders import make_row, write_lines, write_list

ODD_ROWS = [
    '{"id": 1, "conversations": [{"from": "human", "value": "é"}, {"from": "gpt", "value": "\\u00e9"}]}',
    '{ "conversations" : [ {"from":"human","value":"a"} , {"value":"b","from":"gpt"} ], "x": 1e400, "x": NaN }',
    '{"conversations": []}',
    '{"conversations": [{"from": "human", "value": "漢"}, {"from": "gpt", "value": "]},{\\"["}], "extra": [1.0, 1.00]}',
    '{"task_name": "t", "conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "x"}]}',
]
DELTAS = [0.5, 2.0, None, 1.0, 3.0]


def make_run(folder: Path, data: Path) -> RunFolder:
    dataset = FileRows(data)
    manifest = Manifest(
        model="tiny",
        model_fingerprint="f",
        settings={"block": -2},
        data=str(data),
        images="",
        input=dataset.fingerprint,
        format="llava",
        n_rows=len(dataset),
        unit_rows=2,
    )
    with RunFolder.start(folder, manifest) as run:
        for unit in run.units_to_do():
            records = dataset.records(run.unit_rows(unit).start, run.unit_rows(unit).stop)
            scores = [
                SampleScore(
                    row=record.row,
                    id=record.id,
                    key=record.key,
                    source=record.source,
                    status="failed" if record.reason else "ok",
                    reason=record.reason,
                    reason_code=record.reason_code,
                    delta=DELTAS[record.row],
                )
                for record in records
            ]
            run.write_unit(unit, scores)
        run.mark_complete()
    return run


@pytest.fixture(params=["list", "lines"])
def data(request, tmp_path):
    path = tmp_path / "data.json"
    path.write_text(
        "[" + " ,\n ".join(ODD_ROWS) + "]" if request.param == "list" else "\r\n".join(ODD_ROWS), encoding="utf-8"
    )
    return path


@pytest.fixture
def run(tmp_path, data):
    return make_run(tmp_path / "run", data)


def export(run, out, keep="3", **options):
    return export_selection(select_rows(run.read_scores(), keep, rule="top"), run, out, **options)[0]


@pytest.mark.parametrize(("order", "rows"), [("input", [1, 3, 4]), ("score", [4, 1, 3])])
def test_the_very_bytes(run, data, tmp_path, order, rows):
    out = tmp_path / "out" / "kept.json"
    export(run, out, order=order)
    assert [row.raw.decode() for row in iter_rows(out)] == [ODD_ROWS[row] for row in rows]
    assert out.read_bytes().startswith(b"[") == data.read_bytes().startswith(b"[")
    assert sorted(path.name for path in out.parent.iterdir()) == ["kept.json", "kept.json.selection.json"]


def test_all_rows_that_can_be_kept(run, tmp_path):
    export(run, tmp_path / "out.json", keep="100%")
    assert [row.raw.decode() for row in iter_rows(tmp_path / "out.json")] == [ODD_ROWS[row] for row in (0, 1, 3, 4)]


def test_the_note(run, data, tmp_path):
    note = json.loads(export(run, tmp_path / "out.json", keep="50%").read_text(encoding="utf-8"))
    assert note["rows"] == [4, 1]
    assert (note["rule"], note["column"], note["budget"], note["threshold"]) == ("top", "delta", "50%", 2.0)
    assert (note["n_kept"], note["n_candidates"], note["n_rows"]) == (2, 4, 5)
    assert note["sources"] == {"": {"kept": 1, "left": 2, "failed": 1}, "t": {"kept": 1, "left": 0, "failed": 0}}
    assert note["reasons"] == {"among the 2 highest of 4": 2}
    assert note["run"]["manifest_sha256"] == run.manifest_sha256
    assert note["input"]["sha256"] == run.manifest.input.sha256


def test_the_same_selection_gives_the_same_bytes(run, tmp_path):
    notes = [export(run, tmp_path / name / "out.json").read_bytes() for name in ("a", "b")]
    assert notes[0] == notes[1]


def test_another_input_is_refused(run, data, tmp_path):
    data.write_bytes(data.read_bytes().replace(b'"a"', b'"b"'))
    with pytest.raises(ArtifactError, match="is not the file that was scored"):
        export(run, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_an_input_that_has_moved(run, data, tmp_path):
    moved = data.rename(tmp_path / "moved.json")
    with pytest.raises(DataError, match="doesn't exist"):
        export(run, tmp_path / "out.json")
    export(run, tmp_path / "out.json", place=Place(moved))
    assert (tmp_path / "out.json").exists()


def test_the_input_is_never_overwritten(run, data, tmp_path):
    (tmp_path / "link.json").symlink_to(data)
    for out in (data, tmp_path / "link.json", tmp_path / "." / "data.json"):
        with pytest.raises(SettingsError, match="is the data itself"):
            export(run, out)
    (tmp_path / "hard.json").hardlink_to(data)
    before = data.read_bytes()
    with pytest.raises(SettingsError, match="is the data itself"):
        export(run, tmp_path / "hard.json", force=True)
    assert data.read_bytes() == before
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(SettingsError, match="is a folder"):
        export(run, tmp_path / "folder.json")


def test_only_what_select_wrote_is_replaced(run, tmp_path):
    out = tmp_path / "out.json"
    export(run, out, keep="1")
    export(run, out, keep="2")
    assert len(json.loads(out.read_bytes()) if out.read_bytes().startswith(b"[") else out.read_text().split("\n")) >= 2
    edited = out.read_bytes() + b" "
    out.write_bytes(edited)
    with pytest.raises(SettingsError, match=r"exists, and this tool didn't write it; .* --force"):
        export(run, out)
    assert out.read_bytes() == edited
    export(run, out, force=True)
    assert out.read_bytes() != edited
    note = tmp_path / "new.json.selection.json"
    note.write_text("{}")
    with pytest.raises(SettingsError, match="didn't write it"):
        export(run, tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.tar", "x.jsonl"])
def test_a_name_that_promises_another_kind_of_file_is_refused(tmp_path, name):
    data = write_list(tmp_path / "data.json", [make_row(n) for n in range(5)])
    run = make_run(tmp_path / "run", data)
    with pytest.raises(SettingsError, match=r"is a JSON list .* ends in \.json, or another format with --to"):
        export(run, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_the_ending_of_the_input_is_kept(tmp_path):
    """Many JSONL files are called .json."""
    data = write_lines(tmp_path / "data.json", [make_row(n) for n in range(5)])
    export(make_run(tmp_path / "run", data), tmp_path / "out.json")
    export(make_run(tmp_path / "run2", data), tmp_path / "out.jsonl")
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "out.jsonl").read_bytes()

"""Kept rows of tables, tars and many files are the same rows, in files that load as the input did."""

import json
import tarfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.run_export import export_rows, open_scored
from delta_attnmask.reading.columns import Columns
from delta_attnmask.reading.rows import FileRows, Place
from tests.exporting.runs import score_all
from tests.reading import samples
from tests.reading.builders import make_row, write_list
from tests.reading.test_columns import make_table, write_file, write_parquet, write_stream


def export(dataset, tmp_path, rows, name="out", to=None):
    run = score_all(dataset, tmp_path / "run")
    scores = run.read_scores()
    out = tmp_path / name
    export_rows(open_scored(run, Place()), np.array(rows), out, to=to, scores=scores)
    return out


def write_old_parquet(path, table):
    """With the names that pyarrow gave to the items of lists before 2023."""
    pq.write_table(table, path, use_compliant_nested_type=False)
    return path


@pytest.mark.parametrize("write", [write_parquet, write_stream, write_file, write_old_parquet])
@pytest.mark.parametrize("rows", [[0], [3, 4, 30], [30, 3, 4], list(range(40))])
def test_tables_keep_rows_and_schema(tmp_path, write, rows):
    table = make_table().replace_schema_metadata({"made by": "hand", "huggingface": "{}"})
    ending = ".parquet" if "parquet" in write.__name__ else ".arrow"
    dataset = FileRows(write(tmp_path / f"x{ending}", table))
    schema = read_schema(dataset)
    kept = FileRows(export(dataset, tmp_path, rows, f"out{ending}"))
    assert read_schema(kept).equals(schema)
    assert read_schema(kept).metadata == schema.metadata == table.schema.metadata
    batches = [batch for _, batch in kept.parts[0].container.batches()]
    assert pa.Table.from_batches(batches, schema).equals(table.take(rows).cast(schema))


def read_schema(dataset):
    container = dataset.parts[0].container
    assert isinstance(container, Columns)
    return container.schema


def test_members_of_a_tar(tmp_path):
    members = [(f"{n}.{end}", bytes([n]) * (700 * n)) for n in range(1, 6) for end in ("jpg", "txt")]
    dataset = FileRows(samples.write_tar(tmp_path / "x.tar", members))
    out = export(dataset, tmp_path, [4, 1], "out.tar")
    with tarfile.open(tmp_path / "x.tar") as before, tarfile.open(out) as after:
        kept = [(member, after.extractfile(member).read()) for member in after]
        assert [member.name for member, _ in kept] == ["5.jpg", "5.txt", "2.jpg", "2.txt"]
        for member, data in kept:
            assert data == before.extractfile(member.name).read()
            assert (member.mtime, member.mode) == (1_700_000_000, before.getmember(member.name).mode)
    assert out.stat().st_size % 512 == 0


def test_annotations_stay_annotations(tmp_path):
    location = samples.minigpt4(tmp_path)
    out = export(FileRows(location), tmp_path, [1], "out.json")
    assert json.loads(out.read_bytes()) == {"annotations": [json.loads(location.read_bytes())["annotations"][1]]}


def test_a_folder_saved_to_disk_loads_from_disk(tmp_path):
    table = make_table(6)
    kept = datasets.Dataset(table).select_columns(["n", "conversations"])
    kept.save_to_disk(tmp_path / "disk", num_shards=2)
    out = export(FileRows(tmp_path / "disk"), tmp_path, [1, 2, 5])
    again = datasets.load_from_disk(out)
    assert again["n"] == [1, 2, 5]
    assert again.features == kept.features
    assert again._fingerprint != kept._fingerprint
    nothing = export(FileRows(tmp_path / "disk"), tmp_path, [5], "second")
    assert datasets.load_from_disk(nothing)["n"] == [5]


def test_a_snapshot_loads_as_a_data_set(tmp_path):
    hub = samples.parquet(tmp_path)
    out = export(FileRows(hub), tmp_path, [0])
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["id"] == ["a"]
    assert loaded[0]["images"][0].size == (8, 6)


def test_several_files_and_the_order_in_each(tmp_path):
    for n in range(3):
        (tmp_path / "in" / "sub").mkdir(parents=True, exist_ok=True)
        write_list(tmp_path / "in" / ("sub" if n else ".") / f"{n}.json", [make_row(10 * n + k) for k in range(3)])
    out = export(FileRows(tmp_path / "in"), tmp_path, [5, 0, 3])
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.json")) == ["0.json", "sub/1.json"]
    assert [row["id"] for row in json.loads((out / "sub" / "1.json").read_bytes())] == [12, 10]
    with pytest.raises(SettingsError, match="isn't empty"):
        export_rows(FileRows(tmp_path / "in"), np.array([1]), out, to=None, scores=None)


def test_a_mixture_stays_one(tmp_path):
    samples.write_image(tmp_path / "pictures" / "coco" / "x.png")
    samples.llava(tmp_path)
    samples.parquet(tmp_path)
    entries = [
        {"name": "one", "data": "llava_v1_5_mix665k.json", "images": "pictures", "weight": 2},
        {"name": "two", "data": "hub"},
    ]
    (tmp_path / "mix.json").write_text(json.dumps({"sources": entries}))
    before = FileRows(tmp_path / "mix.json")
    out = export(before, tmp_path, [0, 3])
    after = FileRows(out / "mixture.json")
    assert [(part.name, part.weight, part.format.spec) for part in after.parts] == [
        ("one", 2, "llava"),
        ("two", 1, "llava"),
    ]
    records = list(before)
    assert [(one.source, one.turns, one.key) for one in after] == [
        (one.source, one.turns, one.key) for one in (records[0], records[3])
    ]
    assert after.load_image(next(iter(after)).images[0]).size == (8, 6)


def test_nothing_of_the_input_is_overwritten(tmp_path):
    hub = samples.parquet(tmp_path)
    dataset = FileRows(hub)
    with pytest.raises(SettingsError, match="is a folder that"):
        export_rows(dataset, np.array([0]), hub, to=None, scores=None)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="expected a folder"):
        export_rows(dataset, np.array([0]), tmp_path / "file", to=None, scores=None)

"""What is named as data becomes files: patterns, folders, several files, mixtures; and one data set of them all."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.reading.inputs import find_sources
from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import ImageRef
from tests.reading import samples
from tests.reading.builders import make_row, write_images, write_lines, write_list


def names(given: object) -> list[str]:
    return [source.path.name for source in find_sources(given)[1]]  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(3):
        write_list(tmp_path / f"part-{n}.json", [make_row(10 * n + k, f"a/{k}.png") for k in range(n + 1)])
    return tmp_path


def test_patterns_lists_and_folders(folder):
    (folder / "dataset_info.json").write_text("{}")
    (folder / "part-0.json.selection.json").write_text("{}")
    (folder / ".cache").mkdir()
    for hidden in (".hidden.json", ".cache/x.json"):
        (folder / hidden).write_text("[]")
    expected = ["part-0.json", "part-1.json", "part-2.json"]
    assert names(folder) == names(str(folder / "*.json")) == names(str(folder / "**/*.json")) == expected
    assert names(str(folder / ".cache/*")) == ["x.json"]
    assert names([folder / "part-2.json", str(folder / "part-[01].json")]) == ["part-2.json", *expected[:2]]


def test_a_location_means_the_same_again(folder, monkeypatch):
    for given in (
        folder / "part-1.json",
        folder,
        str(folder / "part-*"),
        [folder / "part-1.json", folder / "part-0.json"],
    ):
        location, sources = find_sources(given)
        assert find_sources(location) == find_sources(Path(location)) == (location, sources)
    monkeypatch.chdir(folder)
    assert find_sources("part-1.json")[0] == str(folder / "part-1.json")


def test_what_names_nothing(folder):
    for given in (str(folder / "x*"), folder / "none.json", [], "[1]", "[", folder / "sub" / "*.json"):
        with pytest.raises(DataError):
            FileRows(given)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no file with one of the endings"):
        FileRows(folder / "empty")
    write_lines(folder / "x.jsonl", [make_row(0)])
    with pytest.raises(DataError, match="JSON and JSONL files; name the files"):
        FileRows(folder)


def test_several_files_are_one_data_set(folder):
    images = write_images(folder / "images", [f"a/{k}.png" for k in range(3)])
    dataset = FileRows(folder, images)
    assert [record.row for record in dataset] == list(range(6))
    assert [record.id for record in dataset] == ["0", "10", "11", "20", "21", "22"]
    records = list(dataset)
    for start in range(7):
        for stop in range(start, 8):
            assert list(dataset.records(start, stop)) == records[start:stop]
    assert dataset.load_image(records[5].images[0]).size == (8, 8)
    assert records[5].images == (ImageRef("a/2.png"),)
    assert list(pickle.loads(pickle.dumps(dataset)).records(2, 5)) == records[2:5]


def test_a_limit_over_several_files(folder):
    dataset = FileRows(folder, limit=4)
    assert len(list(dataset)) == len(dataset) == 4
    assert dataset.count_rows() == [1, 2, 1]
    assert [record.row for record in dataset.records(2, 9)] == [2, 3]


def test_the_fingerprint_is_of_content_and_order(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved", ignore=shutil.ignore_patterns("moved"))
    first = FileRows(str(folder / "part-*")).fingerprint
    assert FileRows(moved).fingerprint == first
    assert FileRows([folder / f"part-{n}.json" for n in (1, 0, 2)]).fingerprint != first
    write_list(moved / "part-1.json", [make_row(10), make_row(12)])
    assert FileRows(moved).fingerprint != first


def test_formats_may_differ(tmp_path):
    samples.write_image(tmp_path / "images" / "coco" / "x.png")
    dataset = FileRows(
        [sample(tmp_path) for sample in (samples.llava, samples.parquet, samples.messages)], tmp_path / "images"
    )
    assert dataset.format_name == '["llava", "llava", "messages"]'
    records = list(dataset)
    assert [record.turns for record in records] == [samples.IMAGE_ROW, samples.TEXT_ROW] * 3
    assert [dataset.load_image(records[row].images[0]).size for row in (0, 2, 4)] == [(8, 6)] * 3
    again = FileRows(dataset.path, dataset.images_root, format=dataset.format_name)
    assert list(again) == records
    for wrong in ('["llava"]', "[", "[1, 2, 3]"):
        with pytest.raises(SettingsError, match="format="):
            FileRows(dataset.path, format=wrong)


def test_folders_of_datasets(tmp_path):
    disk = samples.arrow(tmp_path)
    assert names(disk) == ["data-00000-of-00001.arrow"]
    splits = tmp_path / "splits"
    splits.mkdir()
    shutil.move(disk, splits / "train")
    (splits / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert names(splits) == ["data-00000-of-00001.arrow"]
    (splits / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataError, match="has the splits train, test; name the folder of one"):
        find_sources(splits)
    for listed in (
        '[{"filename": "../../etc/passwd"}]',
        '[{"filename": "/etc/passwd"}]',
        "[]",
        "5",
        '[{"filename": 5}]',
    ):
        (splits / "train" / "state.json").write_text(f'{{"_data_files": {listed}}}')
        with pytest.raises(DataError, match=r"leads out|lists no data files"):
            find_sources(splits / "train")


def test_splits_of_a_snapshot_are_told(tmp_path):
    hub = samples.parquet(tmp_path)
    shutil.copy(hub / "data" / "train-00000-of-00001.parquet", hub / "data" / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="has the splits test, train; name one"):
        find_sources(hub)
    assert names(str(hub / "**" / "train*")) == ["train-00000-of-00001.parquet"]


def mixture(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two data sets whose rows name the same image, in folders of their own."""
    for name, colour in (("a", "red"), ("b", "blue")):
        samples.write_image(tmp_path / name / "x.png", colour)
        write_list(tmp_path / f"{name}.json", [make_row(0, "x.png")])
    return tmp_path


def check_two(dataset: FileRows, weights: list[float]) -> None:
    records = list(dataset)
    assert [record.source for record in records] == ["first", "second"]
    colours = [dataset.load_image(record.images[0]).getpixel((0, 0)) for record in records]
    assert colours == [(255, 0, 0), (0, 0, 255)]
    assert [part.weight for part in dataset.parts] == weights


def test_our_own_mixture(two):
    entries = [
        {"name": "first", "data": "a.json", "images": "a", "format": "llava"},
        {"name": "second", "data": "b.json", "images": "b", "weight": 0.5},
    ]
    check_two(FileRows(mixture(two / "mix.json", {"sources": entries})), [1, 0.5])


def test_internvl_meta_file(two, monkeypatch):
    """Its paths are looked up from the working folder, too."""
    meta = {
        "first": {"root": "a/", "annotation": "a.json", "data_augment": False, "repeat_time": 2, "length": 1},
        "second": {"root": "b", "annotation": str(two / "b.json"), "repeat_time": 1},
    }
    (two / "meta").mkdir()
    monkeypatch.chdir(two)
    check_two(FileRows(mixture(two / "meta" / "meta.json", meta)), [2, 1])


def test_yaml_mixtures(two):
    own = (
        "sources:\n  - {name: first, data: a.json, images: a}\n  - {name: second, data: b.json, images: b, weight: 3}\n"
    )
    check_two(FileRows(mixture(two / "mix.yaml", own)), [1, 3])
    next_style = "datasets:\n  - json_path: a.json\n    sampling_strategy: all\n  - json_path: b.json\n"
    next_style += '    sampling_strategy: "random:10%"\n'
    dataset = FileRows(mixture(two / "next.yaml", next_style), two / "a")
    assert [part.weight for part in dataset.parts] == [1, 0.1]
    assert [record.source for record in dataset] == ["", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sources": []}, "no sources"),
        ({"sources": [5]}, "expected sources with the keys"),
        ({"sources": [{"data": "a.json", "wieght": 1}]}, "expected sources with the keys"),
        ({"sources": [{"name": "a"}]}, "source 1 has no path"),
        ({"sources": [{"data": "a.json", "name": 5}]}, "`name` must be a text"),
        ({"sources": [{"data": "a.json", "weight": 0}]}, "weight 0: expected a number above 0"),
        ({"sources": [{"data": "a.json", "weight": True}]}, "weight True"),
        ({"sources": [{"data": "none.json"}]}, "doesn't exist"),
        ({"sources": [{"data": "a.json", "images": "none"}]}, "isn't a directory"),
        ({"datasets": [{"json_path": "a.json", "sampling_strategy": "first:100"}]}, "sampling_strategy 'first:100'"),
        ({"datasets": [5]}, "expected objects"),
    ],
)
def test_faulty_mixtures(two, content, message):
    with pytest.raises(DataError, match=message):
        FileRows(mixture(two / "mix.json", content))


def test_yaml_that_is_no_mixture(two):
    for content in ("a: [", "a: 1", "- a", "!!python/object/apply:os.system [id]"):
        with pytest.raises(DataError, match="mixture"):
            FileRows(mixture(two / "mix.yaml", content))


def test_a_format_in_a_mixture_comes_before_that_of_the_command(two):
    samples.minigpt4(two)
    entries = [{"data": "a.json", "images": "a"}, {"data": "filter_cap.json", "images": ".", "format": "minigpt4:Q"}]
    dataset = FileRows(mixture(two / "mix.json", {"sources": entries}), format="llava")
    assert [part.format.spec for part in dataset.parts] == ["llava", "minigpt4:Q"]


def test_two_entries_for_one_file(tmp_path):
    location = samples.llama_factory(tmp_path)
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    mixture(tmp_path / "dataset_info.json", info | {"other": info["mine"]})
    with pytest.raises(DataError, match=r"the entries mine, other .* name one"):
        FileRows(location)
    assert FileRows(location, format="llama-factory:other").format_name.startswith('llama-factory:{"columns"')
    for entry in ({"ranking": True}, {"formatting": "x"}, {"columns": {"messages": 5}}, {"tags": ["x"]}):
        mixture(tmp_path / "dataset_info.json", {"mine": info["mine"] | entry})
        with pytest.raises(SettingsError, match=r"dataset_info\.json"):
            FileRows(location)
    mixture(tmp_path / "dataset_info.json", "{")
    with pytest.raises(DataError, match="can't be read"):
        FileRows(location)

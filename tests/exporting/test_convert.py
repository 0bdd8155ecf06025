"""Whole data sets on their way to a trainer: where images go, what is refused, and how the trainer is told."""

import json
from typing import Any

import datasets
import numpy as np
import pytest

from delta_attnmask.errors import SettingsError
from delta_attnmask.exporting.joined import export_scores
from delta_attnmask.exporting.run_export import export_rows, export_selection, open_scored
from delta_attnmask.reading.formats import TARGETS
from delta_attnmask.reading.rows import FileRows, Place
from delta_attnmask.selecting.selector import select_rows
from tests.exporting.runs import score_all
from tests.reading import samples
from tests.reading.builders import make_row, write_lines, write_list

ENDINGS = {"list": ".json", "lines": ".jsonl", "parquet": ".parquet", "tar": ".tar"}


def test_order_and_choice(tmp_path):
    rows = [{"id": str(n), "conversations": samples.from_value(samples.TEXT_ROW)} for n in range(9)]
    dataset = FileRows(write_list(tmp_path / "x.json", rows))
    scores = score_all(dataset, tmp_path / "run").read_scores()
    for chosen in ([1, 4, 8], [8, 1, 4]):
        out = tmp_path / "out.jsonl"
        export_rows(dataset, np.array(chosen), out, to="ms-swift", scores=scores, force=True)
        assert [record.id for record in FileRows(out)] == [str(row) for row in chosen]


def test_images_of_several_folders_become_absolute(tmp_path):
    for name in ("a", "b"):
        samples.write_image(tmp_path / name / "coco" / "x.png")
        (tmp_path / f"in-{name}").mkdir()
        samples.llava(tmp_path / f"in-{name}")
    entries = [{"data": f"in-{name}/llava_v1_5_mix665k.json", "images": name} for name in ("a", "b")]
    (tmp_path / "mix.json").write_text(json.dumps({"sources": entries}))
    dataset = FileRows(tmp_path / "mix.json")
    scores = score_all(dataset, tmp_path / "run").read_scores()
    export_rows(dataset, np.arange(4), tmp_path / "out.json", to="llava", scores=scores)
    images = [row.get("image") for row in json.loads((tmp_path / "out.json").read_bytes())]
    assert images == [str(tmp_path / "a/coco/x.png"), None, str(tmp_path / "b/coco/x.png"), None]


def literal(text: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "A"}]}


def test_rows_that_cannot_be_said_are_left_out_and_told(tmp_path):
    dataset = FileRows(write_lines(tmp_path / "x.jsonl", [literal("a"), literal("What is <image>?"), literal("b")]))
    run = score_all(dataset, tmp_path / "run")
    scores = run.read_scores()
    selection = select_rows(scores, "100%", rule="top")
    note, done = export_selection(selection, run, tmp_path / "out.json", to="llava")
    assert list(done.refused) == [1]
    told = json.loads(note.read_bytes())
    assert (told["rows"], told["to"], told["n_refused"], told["n_kept"]) == ([2, 0], "llava", 1, 2)
    assert "llava can't express it" in told["refused"]["1"]
    with pytest.raises(SettingsError, match="no row could be written as llava; the first: llava can't express it"):
        export_rows(dataset, np.array([1]), tmp_path / "none.json", to="llava", scores=scores)


def test_how_llama_factory_is_told(tmp_path):
    dataset = FileRows(samples.llava(tmp_path), tmp_path)
    scores = score_all(dataset, tmp_path / "run").read_scores()
    made = tmp_path / "made"
    made.mkdir()
    (made / "dataset_info.json").write_text('{"theirs": {"hf_hub_url": "x/y"}}')
    for _ in range(2):
        done = export_rows(dataset, np.arange(2), made / "mine.json", to="llama-factory", scores=scores, force=True)
    info = json.loads((made / "dataset_info.json").read_bytes())
    assert list(info) == ["theirs", "mine"]
    assert f"--dataset mine --dataset_dir {made} --media_dir {tmp_path}" in done.hint
    assert FileRows(made / "mine.json").format_name.startswith("llama-factory:{")
    (made / "dataset_info.json").write_text('{"mine": {"file_name": "other.json"}}')
    with pytest.raises(SettingsError, match="another entry 'mine'"):
        export_rows(dataset, np.arange(2), made / "mine.json", to="llama-factory", scores=scores, force=True)


def test_the_ending_must_fit(tmp_path):
    dataset = FileRows(samples.messages(tmp_path), tmp_path)
    scores = score_all(dataset, tmp_path / "run").read_scores()
    with pytest.raises(SettingsError, match=r"expected a name that ends in \.parquet"):
        export_rows(dataset, np.arange(2), tmp_path / "x.json", to="trl", scores=scores)


def test_tars_and_tables_are_the_same_bytes_again(tmp_path):
    dataset = FileRows(samples.openai(tmp_path))
    scores = score_all(dataset, tmp_path / "run").read_scores()
    for to in ("webdataset", "parquet"):
        outs = [tmp_path / f"{n}{ENDINGS[TARGETS[to].file]}" for n in range(2)]
        for out in outs:
            export_rows(dataset, np.arange(2), out, to=to, scores=scores)
        assert outs[0].read_bytes() == outs[1].read_bytes()


def test_scores_joined_to_rows_of_json(tmp_path):
    samples.write_image(tmp_path / "coco" / "x.png")
    location = samples.llava(tmp_path)
    rows = [*json.loads(location.read_bytes()), {"conversations": "broken"}]
    dataset = FileRows(write_list(location, rows), tmp_path)
    run = score_all(dataset, tmp_path / "run")
    assert export_scores(open_scored(run), run, tmp_path / "out.parquet") == 3
    table = datasets.Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=str(tmp_path / "cache"))
    assert table["score_delta"] == [0.0, 1.0, None]
    assert table["score_status"] == ["ok", "ok", "failed"]
    assert [json.loads(raw) for raw in table["raw"]] == rows
    assert table[0]["images"][0].size == (8, 6)
    assert table["messages"][1][1]["content"][0]["text"] == "Hello!"


def test_scores_joined_to_a_table_keep_its_columns(tmp_path):
    dataset = FileRows(samples.arrow(tmp_path))
    run = score_all(dataset, tmp_path / "run")
    out = tmp_path / "out.parquet"
    export_scores(open_scored(run), run, out)
    loaded = datasets.Dataset.from_parquet(str(out), cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names[:5] == ["id", "images", "conversations", "data_source", "score_row"]
    assert loaded["score_delta"] == [0.0, 1.0]
    assert loaded[0]["images"][0].size == (8, 6)
    joined = FileRows(out)
    assert [record.turns for record in joined] == [record.turns for record in dataset]
    again = score_all(joined, tmp_path / "run2")
    with pytest.raises(SettingsError, match=r"has the columns .*score_delta"):
        export_scores(joined, again, tmp_path / "out2.parquet")


def test_data_and_images_that_moved(tmp_path):
    samples.write_image(tmp_path / "images" / "coco" / "x.png")
    dataset = FileRows(samples.llava(tmp_path), tmp_path / "images")
    run = score_all(dataset, tmp_path / "run")
    data = dataset.path.rename(tmp_path / "moved.json")
    images = (tmp_path / "images").rename(tmp_path / "pictures")
    moved = open_scored(run, Place(data, images))
    assert moved.load_image(next(iter(moved)).images[0]).size == (8, 6)


@pytest.mark.parametrize("name", ["s.csv", "folder", "folder.parquet"])
def test_scores_are_one_parquet_file(tmp_path, name):
    dataset = FileRows(write_list(tmp_path / "x.json", [make_row(n) for n in range(3)]))
    run = score_all(dataset, tmp_path / "run")
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(SettingsError, match=r"expected a name that ends in \.parquet|is a folder; expected a file"):
        export_scores(dataset, run, tmp_path / name)
    assert not (tmp_path / name).is_file()

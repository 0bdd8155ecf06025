"""Every format to its own files and to every trainer's, and back: the same turns, images, ids and sources."""

from pathlib import Path

import numpy as np
import pytest

from delta_attnmask.exporting.run_export import export_rows, open_scored
from delta_attnmask.reading.formats import TARGETS
from delta_attnmask.reading.images import ImageLimits
from delta_attnmask.reading.rows import FileRows
from tests.exporting.runs import score_all
from tests.reading import samples
from tests.reading.samples import SAMPLES, Sample

ENDINGS = {"list": ".json", "lines": ".jsonl", "parquet": ".parquet", "tar": ".tar"}


@pytest.fixture(params=[*SAMPLES, samples.minigpt4], ids=lambda sample: sample.__name__)
def sample(request: pytest.FixtureRequest) -> Sample:
    return request.param


@pytest.fixture
def dataset(sample: Sample, tmp_path: Path) -> FileRows:
    """With a folder of images for all, whether their rows name files in it or hold them."""
    (tmp_path / "in").mkdir()
    samples.write_image(tmp_path / "in" / "coco" / "x.png")
    return FileRows(sample(tmp_path / "in"), tmp_path / "in")


def describe(dataset: FileRows) -> list[tuple[object, ...]]:
    return [
        (one.id, one.source, one.turns, [dataset.read_image_bytes(image) for image in one.images], one.reason)
        for one in dataset
    ]


@pytest.mark.parametrize("to", [None, *TARGETS])
def test_there_and_back(dataset, tmp_path, to):
    run = score_all(dataset, tmp_path / "run")
    ending = ENDINGS[TARGETS[to].file] if to else dataset.parts[0].path.suffix
    out = tmp_path / "out" / ("kept" if to is None and dataset.path.is_dir() else f"kept{ending}")
    done = export_rows(open_scored(run), np.arange(2), out, to=to, scores=run.read_scores())
    assert (done.n_written, done.refused) == (2, {})
    unpacked = ImageLimits(allow_outside=True)  # images that rows held are beside the file, not in the folder
    assert describe(FileRows(out, tmp_path / "in", image_limits=unpacked)) == describe(dataset)


def test_images_that_stood_in_rows_give_no_source(tmp_path):
    """They are unpacked beside the file, whose rows then name them by absolute paths, or by their hash."""
    (tmp_path / "images").mkdir()
    for images in (None, tmp_path / "images"):
        dataset = FileRows(samples.openai(tmp_path), images)
        run = score_all(dataset, tmp_path / f"run-{images is None}")
        out = tmp_path / f"out-{images is None}" / "kept.json"
        export_rows(dataset, np.arange(2), out, to="llava", scores=run.read_scores())
        assert [record.source for record in FileRows(out)] == ["", ""]


def test_an_entry_of_dataset_info_goes_with_the_rows(tmp_path):
    dataset = FileRows(samples.llama_factory(tmp_path))
    out = tmp_path / "out" / "kept.json"
    out.parent.mkdir()
    info = out.parent / "dataset_info.json"
    info.write_text('{"theirs": {"hf_hub_url": "x/y"}}')
    scores = score_all(dataset, tmp_path / "run").read_scores()
    export_rows(dataset, np.array([1]), out, to=None, scores=scores)
    again = FileRows(out)
    assert again.format_name == dataset.format_name
    assert [record.turns for record in again] == [samples.TEXT_ROW]
    assert '"theirs"' in info.read_text()
    assert '"file_name": "kept.json"' in info.read_text()


def test_entries_go_with_several_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        samples.llama_factory(tmp_path / "in" / name)
    dataset = FileRows(tmp_path / "in")
    scores = score_all(dataset, tmp_path / "run").read_scores()
    export_rows(dataset, np.arange(4), tmp_path / "out", to=None, scores=scores)
    assert describe_turns(FileRows(tmp_path / "out")) == describe_turns(dataset)


def describe_turns(dataset: FileRows) -> list[object]:
    return [(record.turns, record.reason) for record in dataset]

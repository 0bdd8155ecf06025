"""Every format is recognised, says the same conversations, and is read from anywhere."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from delta_attnmask.reading.rows import FileRows
from delta_attnmask.records import Turn
from tests.reading import samples
from tests.reading.samples import IMAGE_ROW, RED, SAMPLES, TEXT_ROW, Sample


@pytest.fixture(params=SAMPLES, ids=lambda sample: sample.__name__)
def sample(request: pytest.FixtureRequest) -> Sample:
    return request.param


@pytest.fixture
def dataset(sample: Sample, tmp_path: Path) -> FileRows:
    samples.write_image(tmp_path / "images" / "coco" / "x.png")
    return FileRows(sample(tmp_path), tmp_path / "images")


def test_what_it_says(dataset, sample):
    assert dataset.format_name.partition(":")[0] == SAMPLES[sample]
    assert [record.reason for record in dataset] == ["", ""]
    assert [record.turns for record in dataset] == [IMAGE_ROW, TEXT_ROW]
    assert [len(record.images) for record in dataset] == [1, 0]


def test_its_image(dataset):
    image = dataset.load_image(next(iter(dataset)).images[0])
    assert (image.size, image.getpixel((0, 0))) == ((8, 6), RED)


def test_from_anywhere_and_elsewhere(dataset):
    records = list(dataset)
    assert len(dataset) == 2
    assert list(dataset.records(1, 9)) == records[1:]
    assert list(dataset.records(0, 1)) == records[:1]
    assert list(dataset.records(2, 2)) == []
    assert len({record.key for record in records}) == 2
    again = pickle.loads(pickle.dumps(dataset))
    assert list(again) == records
    assert again.load_image(records[0].images[0]).size == (8, 6)


def test_opened_again_by_what_a_manifest_keeps(dataset):
    again = FileRows(str(dataset.path), dataset.images_root, format=dataset.format_name)
    assert (list(again), again.format_name, again.fingerprint) == (
        list(dataset),
        dataset.format_name,
        dataset.fingerprint,
    )


def test_sources(tmp_path):
    def sources(sample: Sample) -> Iterator[str]:
        return (record.source for record in FileRows(sample(tmp_path)))

    assert list(sources(samples.llava)) == ["coco", ""]
    assert list(sources(samples.vision_flan)) == ["Total-Text+text_detection", ""]
    assert list(sources(samples.parquet)) == ["coco", ""]


def test_the_same_row_has_the_same_key_in_every_table(tmp_path):
    keys = [
        [record.key for record in FileRows(one(tmp_path))] for one in (samples.parquet, samples.arrow, samples.feather)
    ]
    assert keys[0] == keys[1] == keys[2]


def test_captions_and_their_question(tmp_path):
    location = samples.minigpt4(tmp_path)
    dataset = FileRows(location, tmp_path)
    assert dataset.format_name == "minigpt4:Describe this image in detail."
    assert dataset.load_image(next(iter(dataset)).images[0]).size == (8, 6)
    asked = FileRows(location, tmp_path, format="minigpt4:What is it? a:b")
    question = Turn("user", (None, "What is it? a:b"))
    assert [record.turns for record in asked] == [
        (question, Turn("assistant", ("The picture shows a bear.",))),
        (question, Turn("assistant", ("A bear.",))),
    ]
    assert FileRows(location, format=asked.format_name).format_name == asked.format_name

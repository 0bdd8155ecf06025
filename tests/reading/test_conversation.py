"""What a row's source is, told by its fields or by its image's path."""

import pytest

from delta_attnmask.reading.conversation import find_source
from delta_attnmask.records import ImageRef


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("coco/train/1.png", "coco"),
        ("./coco//1.png", "coco"),
        ("coco/../gqa/1.png", "gqa"),
        ("1.png", ""),
        ("./1.png", ""),
        ("../../../etc/passwd", ""),
        ("coco/../../etc/passwd", ""),
        ("/etc/passwd", ""),
    ],
)
def test_source_of_a_path(path, source):
    assert find_source({"image": path}) == source
    assert find_source({}, (ImageRef(path),)) == source
    assert find_source({"image": path, "source": "mine"}) == "mine"

"""Equal faults are counted together, unlike ones apart, and what mends them is told."""

import pytest

from delta_attnmask.reading.faults import commonest, count_faults, describe_faults, find_mend, generalise, show_bytes


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("turn 12: the answer is empty", "turn N: the answer is empty"),
        ("image 'a 1.png': No such file", "image …: No such file"),
        ('image "it\'s.png": x', "image …: x"),
        (r"image 'a\'b' of 3x4", "image … of NxN"),
        ("the model's images; the row's 3 'a'", "the model's images; the row's N …"),
        (r"image starts with b'\x89\'P': expected", "image starts with …: expected"),
        ("1234 images, more than 1000", "N images, more than N"),
    ],
)
def test_names_and_numbers_make_no_kind(reason, kind):
    assert generalise(reason) == kind


def test_counts_of_image_places_make_a_kind():
    reasons = ["0 <image> for 1 image", "2 <image> for 1 image", "12 <image> for 1 image", "2 <image> for 12 images"]
    assert len({*map(generalise, reasons)}) == 4


def test_the_commonest_comes_first_with_its_first_rows():
    found = count_faults([(0, "odd"), *((row, f"turn {row}: empty") for row in range(1, 9))])
    first, second = commonest(found)
    assert (first.n_rows, first.rows, first.example) == (8, [1, 2, 3, 4, 5], "turn 1: empty")
    assert (second.n_rows, second.example) == (1, "odd")


def test_faults_in_one_line():
    faults = count_faults(
        [(0, "image 'a.png': no image folder was given"), *((row, "abcd"[row - 1]) for row in (1, 2, 3))]
    )
    said = describe_faults(faults)
    assert said.startswith("1 like this: image 'a.png': no image folder was given; 1 like this: a; ")
    assert said.endswith("and 1 more kind; give the folder of the images with --images")
    assert describe_faults({}) == ""


@pytest.mark.parametrize(
    ("reason", "mend"),
    [
        ("image 'a.png': no image folder was given", "give the folder of the images with --images"),
        ("image 'a.png': No such file or directory", "image paths start in with --images"),
        ("image 'a.png': no such file in s3://x", "image paths start in with --images"),
        ("image '/a.png': outside the image folder", "--allow-outside"),
    ],
)
def test_mends(reason, mend):
    assert mend in find_mend(reason)


def test_names_of_files_ask_for_no_mend():
    assert find_mend("image 'no such file.png': can't be decoded") == ""


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"hello", "'hello'"),
        (b"\x1f\x8b\x08", "the bytes '1f 8b 08'"),
        ("é".encode(), "the bytes 'c3 a9'"),
        (b"", "''"),
    ],
)
def test_bytes_are_shown_as_text_or_hex(data, shown):
    assert show_bytes(data) == shown
    assert "…" in generalise(f"starts with {show_bytes(data)}")

"""Equal faults are counted together, unlike ones apart, and the fix is named."""

import pickle

import pytest

from delta_attnmask.errors import ReasonCode, RowError
from delta_attnmask.reading.containers import show_bytes
from delta_attnmask.reading.faults import commonest, count_faults, describe_faults, find_fix, generalise


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
    found = count_faults([(0, "no_field", "odd"), *((row, "no_answer", f"turn {row}: empty") for row in range(1, 9))])
    first, second = commonest(found)
    assert (first.n_rows, first.rows, first.example) == (8, [1, 2, 3, 4, 5], "turn 1: empty")
    assert (second.n_rows, second.example) == (1, "odd")


def test_faults_in_one_line():
    lost = (0, ReasonCode.NO_IMAGE_FOLDER, "image 'a.png': no image folder was given")
    faults = count_faults([lost, *((row, ReasonCode.WRONG_TYPE, "abcd"[row - 1]) for row in (1, 2, 3))])
    said = describe_faults(faults)
    assert said.startswith("1 like this: image 'a.png': no image folder was given; 1 like this: a; ")
    assert said.endswith("and 1 more; give the folder of the images with --images")
    assert describe_faults({}) == ""


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (ReasonCode.NO_IMAGE_FOLDER, "give the folder of the images with --images"),
        (ReasonCode.IMAGE_MISSING, "image paths are relative to with --images"),
        (ReasonCode.IMAGE_OUTSIDE, "--allow-outside"),
    ],
)
def test_fixes(code, fix):
    assert fix in find_fix(code)
    assert fix in find_fix(str(code))  # as it comes back from a table


def test_a_reason_of_another_kind_has_no_fix():
    """Whatever its text says: no decision reads it."""
    assert find_fix(ReasonCode.IMAGE_UNREADABLE) == find_fix("") == ""


def test_equal_texts_of_other_kinds_are_counted_apart():
    found = count_faults([(0, ReasonCode.IMAGE_MISSING, "same"), (1, ReasonCode.IMAGE_OUTSIDE, "same")])
    assert [(fault.code, fault.n_rows) for fault in commonest(found)] == [("image_missing", 1), ("image_outside", 1)]


def test_the_error_of_a_row_can_be_pickled():
    error = pickle.loads(pickle.dumps(RowError(ReasonCode.TEMPLATE, "the template refuses")))
    assert (error.code, error.detail, str(error)) == (
        ReasonCode.TEMPLATE,
        "the template refuses",
        "the template refuses",
    )


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

"""A format is recognised by the rows, and never silently guessed wrong."""

import pytest

from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.reading.formats import FORMATS, detect_format, find_format
from delta_attnmask.reading.rows import RawRow


def rows(*values: object) -> list[RawRow]:
    return [RawRow(n, 0, b"", value) for n, value in enumerate(values)]


def test_names_are_keys():
    assert [fmt.name for fmt in FORMATS.values()] == list(FORMATS)


def test_detected_among_bad_rows():
    assert detect_format(rows(5, None, {"conversations": []}), "x").name == "llava"


def test_unknown_format_names_the_keys():
    with pytest.raises(DataError, match=r"\['messages', 'n'\]"):
        detect_format(rows({"messages": []}, {"n": 1}), "x")
    with pytest.raises(DataError, match="none of the first 2 rows is an object"):
        detect_format(rows(1, []), "x")


def test_unknown_name():
    with pytest.raises(SettingsError, match="llava"):
        find_format("lava")

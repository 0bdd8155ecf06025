"""A format is recognised by the rows, and never silently guessed wrong."""

from pathlib import Path

import pytest

from delta_attnmask.errors import DataError, SettingsError
from delta_attnmask.reading.containers import RawRow
from delta_attnmask.reading.formats import FORMATS, choose_format, detect_format

NOWHERE = Path("/nowhere/data.json")


def rows(*values: object) -> list[RawRow]:
    return [RawRow(n, 0, b"", value) for n, value in enumerate(values)]


def test_names_are_keys():
    assert [fmt.spec.partition(":")[0] for fmt in FORMATS.values()] == list(FORMATS)


def test_detected_among_bad_rows():
    assert detect_format(rows(5, None, {"conversations": []}), "x").spec == "llava"


def test_a_few_rows_of_another_format_are_bad_rows():
    assert detect_format(rows(*[{"conversations": []}] * 3, {"messages": []}), "x").spec == "llava"


def test_more_than_one_candidate_is_told():
    with pytest.raises(DataError, match=r"could be llava \(2 of the first 3 rows\) or messages \(1\)"):
        detect_format(rows({"conversations": []}, {"conversations": []}, {"messages": []}), "x")
    with pytest.raises(DataError, match="--format"):
        detect_format(rows({"conversations": [], "messages": []}), "x")


def test_unknown_format_names_the_keys():
    with pytest.raises(DataError, match=r"have the keys n, turns$"):
        detect_format(rows({"turns": []}, {"n": 1}), "x")
    with pytest.raises(DataError, match="none of the first 2 rows is an object"):
        detect_format(rows(1, []), "x")


@pytest.mark.parametrize(
    ("asked", "row", "spec"),
    [
        ("qwen-vl", {}, "llava"),
        ("sharegpt", {"messages": []}, "llava"),
        ("openai", {}, "messages"),
        ("trl", {"prompt": "", "completion": ""}, "prompt-completion"),
        ("ms-swift", {"query": "", "response": ""}, "query-response"),
        ("llama-factory", {"messages": []}, "messages"),
        ("minigpt4:What is it?", {}, "minigpt4:What is it?"),
    ],
)
def test_asked_for_by_name(asked, row, spec):
    assert choose_format(asked, rows(row), NOWHERE).spec == spec


@pytest.mark.parametrize("asked", ["lava", "llava:x", "llama-factory:{", "llama-factory:none", "trl:x"])
def test_unknown_names_and_options(asked):
    with pytest.raises(SettingsError, match=r"expected|no option|no entry"):
        choose_format(asked, rows({"messages": []}), NOWHERE)

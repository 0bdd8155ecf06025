"""Rows come out with their very bytes, whatever surrounds them and whatever is wrong with one of them."""

import json
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delta_attnmask.errors import DataError
from delta_attnmask.reading.containers import RawRow
from delta_attnmask.reading.jsonfile import JsonFile, iter_rows

on_one_file = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def read(path: Path, content: bytes | str, **options: int) -> list[RawRow]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(iter_rows(path, **options))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.json"


@on_one_file
@given(
    values=st.lists(json_values, max_size=6),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    space=st.sampled_from(["", " ", "\r\n\t"]),
    chunk_bytes=st.integers(1, 40),
)
def test_list_equals_json_and_spans_equal_the_file(path, values, ascii_only, indent, space, chunk_bytes):
    elements = [json.dumps(value, ensure_ascii=ascii_only, indent=indent) for value in values]
    content = f"{space}[{space}{f'{space},{space}'.join(elements)}{space}]{space}".encode("utf-8", "surrogatepass")
    rows = read(path, content, chunk_bytes=chunk_bytes)
    assert [row.value for row in rows if row.error is None] == [
        value for value, row in zip(values, rows, strict=True) if row.error is None
    ]
    assert all("UTF-8" in str(row.error or "") for row in rows if row.error)
    assert [row.raw for row in rows] == [element.encode("utf-8", "surrogatepass") for element in elements]
    assert all(content[row.start : row.start + len(row.raw)] == row.raw for row in rows)
    assert [row.row for row in rows] == list(range(len(values)))


@on_one_file
@given(values=st.lists(json_values, min_size=1, max_size=6), ending=st.sampled_from(["\n", "\r\n", "\n\n \n"]))
def test_lines_equal_json(tmp_path, values, ending):
    elements = [json.dumps(value) for value in values]
    rows = read(tmp_path / "data.jsonl", ending.join(elements) + ending) if elements[0][0] != "[" else []
    assert [row.value for row in rows] == (values if elements[0][0] != "[" else [])


@on_one_file
@given(
    content=st.binary(max_size=60), chunk_bytes=st.integers(1, 20), opening=st.sampled_from([b"[", b'[{"a":', b'[{},"'])
)
def test_any_bytes_give_rows_or_a_data_error(path, content, chunk_bytes, opening):
    with suppress(DataError):
        for row in read(path, opening + content, chunk_bytes=chunk_bytes):
            assert row.error or repr(json.loads(row.raw.decode())) == repr(row.value)


@on_one_file
@given(content=st.binary(max_size=60), chunks=st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_chunk_size_changes_nothing(path, content, chunks):
    outcomes = []
    for chunk_bytes in chunks:
        try:
            outcomes.append(repr(read(path, b'[{"a": [' + content, chunk_bytes=chunk_bytes)))
        except DataError as error:
            outcomes.append(str(error)[:60])
    assert outcomes[0] == outcomes[1]


BAD_ROWS = [
    b'{"a": tru}',
    b'{"b": "x\x00"}',
    b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b'{"a": ' + b"1" * 5000 + b"}",
]
REASONS = ["not JSON: Expecting value", "control character", "nested too deeply", "a number with too many digits"]


def test_one_bad_line_costs_only_itself(path):
    rows = read(path, b"\n".join([b'{"a": 1}', b'{"a": "\xff"}', *BAD_ROWS, b'{"a": 2}']))
    assert [row.value for row in rows] == [{"a": 1}, *[None] * 5, {"a": 2}]
    for row, reason in zip(rows[1:], ["invalid UTF-8 at byte 7 of the row", *REASONS], strict=False):
        assert reason in str(row.error)


@pytest.mark.parametrize("chunk_bytes", [3, 1 << 18])
@pytest.mark.parametrize("bad", BAD_ROWS, ids=REASONS)
def test_a_list_with_a_bad_row_is_refused(path, bad, chunk_bytes):
    """Nothing says where such a row ends. Only text that isn't UTF-8 fails its row alone."""
    with pytest.raises(DataError, match=r"at byte 11, row 1 is broken: .*(at byte|can't hold)"):
        read(path, b'[{"a": 1}, ' + bad + b', {"a": 2}]', chunk_bytes=chunk_bytes)
    rows = read(path, b'[{"a": 1}, {"a": "\xff"}, {"a": 2}]', chunk_bytes=chunk_bytes)
    assert [row.value for row in rows] == [{"a": 1}, None, {"a": 2}]
    assert str(rows[1].error) == "invalid UTF-8 at byte 7 of the row"


@pytest.mark.parametrize("chunk_bytes", [3, 100, 1 << 18])
@pytest.mark.parametrize("filler", ['"' + "x" * 500 + '"', "[" * 300 + "]" * 300])
def test_a_list_with_a_row_longer_than_allowed_is_refused(path, filler, chunk_bytes):
    with pytest.raises(DataError, match="at byte 11, row 1 is broken, or longer than 400 bytes; in JSONL"):
        read(path, f'[{{"a": 1}}, {filler}, {{"a": 2}}]', chunk_bytes=chunk_bytes, max_row_bytes=400)


def test_a_long_row_is_read_by_small_chunks(path):
    (row,) = read(path, f'[{{"a": "{"x" * 3_000_000}"}}]', chunk_bytes=1)
    assert len(row.raw) == 3_000_009


def test_line_longer_than_allowed(tmp_path):
    long = '{"a": "' + "x" * 500 + '"}'
    rows = read(tmp_path / "data.jsonl", f'{{}}\n{long}\n{{"a": 2}}\n', max_row_bytes=400)
    assert [str(row.error or "") for row in rows] == ["", "longer than 400 bytes", ""]
    assert rows[2].start == len(long) + 4


def test_memory_is_bounded_by_the_longest_row(path):
    with path.open("w") as file:
        file.write("[" + ",".join([json.dumps({"a": "x" * 1000})] * 10_000) + "]")
    tracemalloc.start()
    n_rows = sum(1 for _ in iter_rows(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_rows == 10_000
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("content", "position", "problem"),
    [
        ("[", "byte 1", "truncated"),
        ('[{"a": 1}', "byte 1", "row 0 is broken: is it truncated"),
        ('[{"a": 1},', "byte 10", "row 1 is broken: is it truncated"),
        ('[{"a": [1, "b', "byte 1", "row 0 is broken: Unterminated string starting at byte 11"),
        ('[{"a": 1},]', "byte 10", "row 1 is broken"),
        ("[,1]", "byte 1", "row 0 is broken"),
        ('[{"a": 1} {"a": 2}]', "byte 10", "expected ',' or ']'"),
        ("[{}]{}", "byte 4", "end of the list"),
        ("[tru]", "byte 1", "row 0 is broken: Expecting value at byte 1"),
        ("[1 2]", "byte 3", "expected ',' or ']'"),
    ],
)
def test_broken_list_names_the_byte(path, content, position, problem):
    with pytest.raises(DataError, match=problem) as caught:
        read(path, content)
    assert f"{position}," in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b" \n\t ", "empty"),
        (b"hello", "starts with 'hello';"),
        (b"\x1f\x8b\x08", "starts with the bytes '1f 8b 08';"),
        ("[]".encode("utf-16"), "in UTF-8"),
        (b'{\n  "a": 1\n}', "several lines"),
    ],
)
def test_no_rows_at_all(path, content, problem):
    with pytest.raises(DataError, match=problem):
        read(path, content)


def test_what_is_no_file(tmp_path):
    with pytest.raises(DataError, match="doesn't exist"):
        list(iter_rows(tmp_path / "none.json"))
    with pytest.raises(DataError, match="not a regular file"):
        list(iter_rows(tmp_path))


def test_truncated_last_line_is_a_failed_row(tmp_path):
    rows = read(tmp_path / "data.jsonl", '{"a": 1}\n{"a": 2}\n{"a": "thr')
    assert [bool(row.error) for row in rows] == [False, False, True]


def test_byte_order_mark_is_passed_over(path, tmp_path):
    assert [(row.start, row.value) for row in read(path, b'\xef\xbb\xbf[{"a": 1}]')] == [(4, {"a": 1})]
    assert [row.start for row in read(tmp_path / "data.jsonl", b'\xef\xbb\xbf{"a": 1}\n{}')] == [3, 12]


def test_what_json_load_accepts_is_accepted(path):
    first, second = read(path, '[{"a": NaN, "b": -Infinity}, {"a": 1, "a": 2}]')
    assert first.value["b"] == float("-inf")
    assert second.value == {"a": 2}


def test_layout_is_told_by_the_content(tmp_path):
    for name, content, layout in [
        ("a.json", "{}\n{}", "lines"),
        ("b.jsonl", " [{}]", "list"),
        ("c.jsonl", "1\n", "lines"),
    ]:
        (tmp_path / name).write_text(content)
        assert JsonFile(tmp_path / name).layout == layout


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_reading_from_a_row_on(tmp_path, name):
    elements = [json.dumps({"a": n, "b": "é" * n}, ensure_ascii=False) for n in range(20)]
    content = "\n".join(elements) if name.endswith("l") else f"[{', '.join(elements)}]"
    rows = read(tmp_path / name, content)
    for row in rows:
        assert list(iter_rows(tmp_path / name, row.row, row.start, chunk_bytes=5)) == rows[row.row :]

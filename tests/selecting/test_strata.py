"""Strata are numbered without gaps, whatever the columns are stored as."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.errors import SettingsError
from delta_attnmask.selecting.strata import encode, renumber, strata_of, strata_of_values

TEXTS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=1, max_size=40)


@given(TEXTS, st.booleans(), st.integers(1, 4))
def test_rows_are_together_just_if_their_values_are(pairs, as_dictionary, n_chunks):
    columns = {name: pa.array(values) for name, values in zip("ab", zip(*pairs, strict=True), strict=True)}
    if as_dictionary:
        columns = {name: values.dictionary_encode() for name, values in columns.items()}
    whole = pa.table(columns)
    step = -(-len(whole) // n_chunks)
    table = pa.concat_tables([whole.slice(start, step) for start in range(0, len(whole), step)])
    found = strata_of(table, ["a", "b"])
    together = {(code, pair) for code, pair in zip(found.codes.tolist(), pairs, strict=True)}
    assert len(together) == len(set(pairs)) == found.n
    assert found.sizes.sum() == len(pairs)
    assert (found.sizes > 0).all()
    assert [pairs[first] for first in found.firsts] == [pairs[found.codes.tolist().index(i)] for i in range(found.n)]


def test_dictionaries_of_chunks_that_differ():
    chunks = [pa.array(values).dictionary_encode() for values in (["b", "a"], ["c", "b"], ["a"])]
    codes, values = encode(pa.table({"t": pa.chunked_array(chunks)}), "t")
    assert [values[code] for code in codes] == ["b", "a", "c", "b", "a"]


def test_no_value_is_a_value():
    plain, numbers = pa.array(["a", None, ""]), pa.array([1, None, 1])
    for column, expected in (
        (plain, ["a", "", ""]),
        (plain.dictionary_encode(), ["a", "", ""]),
        (numbers, ["1", "", "1"]),
    ):
        codes, values = encode(pa.table({"t": column}), "t")
        assert [values[code] for code in codes] == expected
    assert encode(pa.table({"t": pa.array([], pa.string())}), "t")[1] == []


def test_without_columns_all_is_one():
    assert strata_of(pa.table({"t": [1, 2]}), []).codes.tolist() == [0, 0]
    with pytest.raises(SettingsError, match="quota by 'x': no such column; there are t"):
        strata_of(pa.table({"t": [1, 2]}), ["x"])


def test_sparse_numbers_are_dense_either_way():
    codes = np.array([7, 2, 7, 40])
    dense, sorted_ = renumber(codes, 41), renumber(codes, 1 << 23)  # so many combinations aren't counted one by one
    assert dense.codes.tolist() == sorted_.codes.tolist() == [1, 0, 1, 2]
    assert dense.n == sorted_.n == 3


def test_taken_rows_are_numbered_anew():
    found = strata_of_values(["a", "b", "c", "b"], ["x", "y", "x", "y"])
    assert (found.n, found.take(np.array([1, 3])).codes.tolist()) == (3, [0, 0])

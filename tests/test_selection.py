"""Budgets are exact, and say what is wrong with them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.errors import SettingsError
from delta_attnmask.selection import Budget


@pytest.mark.parametrize(
    ("text", "n_candidates", "n_kept"),
    [
        ("20%", 10, 2),
        ("20%", 12, 2),
        ("20%", 13, 3),
        ("50%", 5, 3),
        ("12.5%", 100, 13),
        ("0.001%", 5, 1),
        ("100%", 7, 7),
        ("7", 7, 7),
    ],
)
def test_resolve(text, n_candidates, n_kept):
    assert Budget.parse(text).resolve(n_candidates) == n_kept


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "-5", "1.5", "20 %", "1e3", "nan%", "%", "٣"])
def test_no_budget(text):
    with pytest.raises(SettingsError, match="expected a share such as 20%"):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("keep", "n_kept"), [("20%", 20), (0.2, 20), (1.0, 100), (7, 7), (1, 1), (Budget(n_rows=3), 3)]
)
def test_what_python_users_write(keep, n_kept):
    assert Budget.of(keep).resolve(100) == n_kept


@pytest.mark.parametrize("keep", [0, -1, 1.5, 0.0, float("nan"), None, [1], True])
def test_no_budget_in_python(keep):
    with pytest.raises(SettingsError, match=r"expected a share such as '20%' or 0\.2, or a count"):
        Budget.of(keep)


def test_more_than_there_is():
    with pytest.raises(SettingsError, match="keep=8: only 7 rows"):
        Budget.parse("8").resolve(7)


@pytest.mark.parametrize("text", ["20%", "12.5%", "500"])
def test_text_and_back(text):
    assert str(Budget.parse(text)) == text


@given(st.integers(1, 10_000), st.decimals("0.01", "100", places=2))
def test_a_share_keeps_at_least_one_and_at_most_all(n_candidates, percent):
    assert 1 <= Budget.parse(f"{percent}%").resolve(n_candidates) <= n_candidates

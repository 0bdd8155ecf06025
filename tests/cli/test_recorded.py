"""Options of a recorded command line."""

import pytest

from delta_attnmask.cli.recorded import recorded_option


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["score", "--model", "a/b", "--revision", "v1"], "v1"),
        (["score", "--revision=v1=2", "--model", "a/b"], "v1=2"),
        (["score", "--model", "a/b"], None),
        (["score", "--revision"], None),
        ([], None),
    ],
)
def test_an_option_is_found_in_both_spellings(command: list[str], expected: str | None) -> None:
    assert recorded_option(command, "--revision") == expected

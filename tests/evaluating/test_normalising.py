"""The normalisation of answers, rule by rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.evaluating.measures import normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Yes. ", "yes"),
        ("The cat", "cat"),
        ("a red, round ball!", "red round ball"),
        ("A", "a"),  # an option's letter, not an article
        ("A.", "a"),
        ("the a", "the a"),
        ("Two", "2"),
        ("none", "0"),
        ("eleven", "eleven"),
        ("1,000", "1000"),
        ("1,2", "1 2"),
        ("1,0000", "1 0000"),
        ("3.50", "3.50"),
        ("U.S.", "us"),
        ("5 p.m.", "5 pm"),
        (".5", ".5"),
        ("-.5", "-.5"),
        ("v.5", "v5"),
        ("5:30.", "5:30"),
        ("colour: red", "colour red"),
        ("10 %", "10%"),
        ("-5 °C", "-5 °c"),
        ("−5", "-5"),
        ("5-3", "5 3"),
        ("50%", "50%"),
        ("Don’t", "dont"),
        ("isn't", "isnt"),
        ("black_and-white", "black and white"),
        ("$5", "$5"),
        ("...", "..."),
        ("???", "???"),
        ("", ""),
        ("Café", "café"),
        ("Cafe\u0301", "café"),  # composed and decomposed accents are the same
        ("की", "की"),  # a vowel sign is no punctuation
        ("日本。", "日本"),
        ("😀", "😀"),
    ],
)
def test_normalised(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("one", "other"), [("yes", "no"), ("A", "B"), ("1", "-1"), ("...", "!!!"), ("3.5", "35"), (".5", "5")]
)
def test_what_differs_stays_different(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@given(st.text(max_size=30))
def test_never_empties_an_answer(text: str) -> None:
    assert bool(normalise(text)) == bool(text.split())

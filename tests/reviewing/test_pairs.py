"""Pairs are matched, balanced over sides and repeatable, and say nothing of which side was selected."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.reviewing.pairs import BLOCK, begin_review, choose_rows, draw_pairs
from delta_attnmask.reviewing.protocol import PROTOCOL_FILE, Protocol
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.note import read_note
from tests.reviewing.conftest import FAILED, SOURCES

N_PAIRS = 24


@pytest.fixture
def scores(run):
    return run.read_scores(["row", "source", "status", "question"])


@pytest.fixture
def kept(run, scored):
    return read_note(scored / "kept.json", run).indices


def draw(scores, kept, against="random", other=None, n_pairs=N_PAIRS, seed=0):
    return draw_pairs(scores, *choose_rows(scores, kept, against, other), n_pairs=n_pairs, seed=seed)


def rows_of(pair):
    """The selected row and its control."""
    return (pair.first, pair.second) if pair.target == "first" else (pair.second, pair.first)


def compared(pairs):
    return [pair for pair in pairs if not pair.is_check]


def test_the_seed_decides(scores, kept):
    first, again, other = draw(scores, kept), draw(scores, kept), draw(scores, kept, seed=1)
    contents = [[replace(pair, token="") for pair in pairs] for pairs in (first, again, other)]
    assert contents[0] == contents[1] != contents[2]
    tokens = {pair.token for pair in (*first, *again, *other)}
    assert len(tokens) == len(first) + len(again) + len(other)  # never the same, so that they tell nothing


@pytest.mark.parametrize("against", ["random", "left"])
def test_selected_against_control_within_a_source(scores, kept, against):
    pairs = compared(draw(scores, kept, against))
    assert len(pairs) == N_PAIRS
    for selected, control in map(rows_of, pairs):
        assert selected in kept
        assert selected != control != FAILED
        assert against == "random" or control not in kept
        assert SOURCES[selected % 3] == SOURCES[control % 3]
    for rows in zip(*map(rows_of, pairs), strict=True):
        assert set(Counter(rows).values()) == {1}


def test_another_selection_is_compared_where_the_two_differ(run, scored, scores, kept):
    other = read_note(scored / "rival.json", run).indices
    for selected, control in map(rows_of, compared(draw(scores, kept, "rival", other, n_pairs=12))):
        assert selected in set(kept) - set(other)
        assert control in set(other) - set(kept)


def test_sources_are_as_frequent_as_in_the_selection(scores, kept):
    """Any few pairs are a random part of the selection."""
    drawn = Counter(
        rows_of(pair)[0] for seed in range(200) for pair in compared(draw(scores, kept, n_pairs=3, seed=seed))
    )
    assert set(drawn) == set(kept.tolist())
    assert max(drawn.values()) < 5 * min(drawn.values())


def test_each_side_holds_the_selected_one_equally_often(scores, kept):
    for seed in range(5):
        pairs = compared(draw(scores, kept, seed=seed))
        assert Counter(pair.target for pair in pairs) == {"first": N_PAIRS / 2, "second": N_PAIRS / 2}


def test_a_check_in_each_block(scores, kept):
    pairs = draw(scores, kept, n_pairs=20)
    places = [place for place, pair in enumerate(pairs) if pair.is_check]
    assert [place // (BLOCK + 1) for place in places] == [0, 1]
    assert 0 not in places
    assert {pairs[place].target for place in places} == {"first", "second"}
    assert sum(pair.is_check for pair in draw(scores, kept, n_pairs=3)) == 2, "enough to find a careless judge"


def test_questions_too_short_to_reverse_give_no_checks(scores, kept):
    short = scores.set_column(
        scores.schema.get_field_index("question"), "question", pc.utf8_slice_codeunits(scores["question"], 0, 4)
    )
    assert not [pair for pair in draw(short, kept) if pair.is_check]


def test_no_more_pairs_than_rows(scores, kept):
    assert len(compared(draw(scores, kept, n_pairs=500))) == len(kept)


def test_nothing_to_compare(scores, kept):
    with pytest.raises(SettingsError, match="nothing to compare"):
        draw(scores, kept, "itself", other=kept)
    with pytest.raises(SettingsError, match="nothing to compare"):
        draw(scores, np.arange(len(scores)), "left")
    charts = np.arange(0, len(scores), 3)
    with pytest.raises(SettingsError, match="no source has rows on both sides"):
        draw(scores, charts, "left")


def test_the_protocol_comes_back(protocol, folder):
    assert Protocol.read(folder) == protocol


def test_the_same_choices_keep_the_pairs(protocol, run, scored, folder):
    assert begin_review(run, folder, scored / "kept.json", n_pairs=20) == protocol


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_pairs": 30}, "pairs"),
        ({"seed": 1}, "seed"),
        ({"against": "left"}, "against"),
        ({"against": "rival.json"}, "against"),
        ({"selection": "rival.json"}, "selection"),
    ],
)
def test_another_choice_is_refused_and_named(protocol, run, scored, folder, change, named):
    paths = {name: scored / value if str(value).endswith("json") else value for name, value in change.items()}
    wanted = {"selection": scored / "kept.json", "n_pairs": 20} | paths
    with pytest.raises(ArtifactError, match=f"holds a review with other {named};"):
        begin_review(run, folder, **wanted)


def test_another_run_is_refused(protocol, scored, folder, run):
    with pytest.raises(ArtifactError, match="holds a review with other manifest_sha256"):
        begin_review(RunFolder.open(scored / "another"), folder, scored / "another.json", n_pairs=20)
    with pytest.raises(ArtifactError, match="made of another run"):
        begin_review(run, folder.with_name("new"), scored / "another.json")
    assert not folder.with_name("new").exists()


@pytest.mark.parametrize("counts", [{"n_pairs": 0}, {"n_pairs": 1001}])
def test_too_few_or_many(run, scored, folder, counts):
    with pytest.raises(SettingsError, match="expected 1 "):
        begin_review(run, folder, scored / "kept.json", **counts)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "a", "pairs": [1]}', '{"id": "a", "pairs": []}'])
def test_what_is_no_protocol(folder, text):
    folder.mkdir()
    (folder / PROTOCOL_FILE).write_text(text)
    with pytest.raises(ArtifactError, match="no review of this version"):
        Protocol.read(folder)

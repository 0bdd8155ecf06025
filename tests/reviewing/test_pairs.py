"""Pairs are matched, balanced, shuffled and repeatable, and say nothing of which side was selected."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from delta_attnmask.errors import SettingsError
from delta_attnmask.reviewing.pairs import BLOCK, COLUMNS, choose_pools, draw_pairs
from delta_attnmask.reviewing.protocol import other_side
from delta_attnmask.selecting.note import read_note
from tests.reviewing.conftest import FAILED, SOURCES

N_PAIRS = 24


@pytest.fixture
def scores(run):
    return run.read_scores(list(COLUMNS))


@pytest.fixture
def kept(run, scored):
    return read_note(scored / "kept.json", run).indices


def draw(scores, kept, against="random", other=None, n_pairs=N_PAIRS, seed=0):
    pools = choose_pools(scores, kept, against, other)
    return draw_pairs(scores, pools, n_pairs=n_pairs, seed=seed)


def of_kind(pairs, kind):
    return [pair for pair in pairs if pair.kind == kind]


def contents(pairs):
    """All but the tokens; a repetition by the position of what it repeats."""
    tokens = ["", *(pair.token for pair in pairs)]
    return [replace(pair, token="", repeats=str(tokens.index(pair.repeats))) for pair in pairs]


def test_the_seed_decides(scores, kept):
    first, again, other = draw(scores, kept), draw(scores, kept), draw(scores, kept, seed=1)
    assert contents(first) == contents(again) != contents(other)
    tokens = {pair.token for pair in (*first, *again, *other)}
    assert len(tokens) == len(first) + len(again) + len(other)  # never the same, so that they tell nothing


@pytest.mark.parametrize("against", ["random", "left"])
def test_selected_against_control_within_a_source(scores, kept, against):
    pairs = of_kind(draw(scores, kept, against), "compare")
    assert len(pairs) == N_PAIRS
    for pair in pairs:
        selected, control = pair.row(pair.target), pair.row(other_side(pair.target))
        assert selected in kept
        assert selected != control != FAILED
        assert against == "random" or control not in kept
        assert {SOURCES[row % 3] for row in (pair.first, pair.second)} == {pair.source}
    assert all(count == 1 for count in Counter(pair.row(pair.target) for pair in pairs).values())


def test_another_selection_is_compared_where_the_two_differ(run, scored, scores, kept):
    other = read_note(scored / "rival.json", run).indices
    pairs = draw(scores, kept, "rival", other, n_pairs=12)
    for pair in of_kind(pairs, "compare"):
        selected, control = pair.row(pair.target), pair.row(other_side(pair.target))
        assert selected in set(kept) - set(other)
        assert control in set(other) - set(kept)


def test_any_beginning_is_balanced_over_sources_until_one_is_used_up(scores, kept):
    pairs = of_kind(draw(scores, kept), "compare")
    n_least = min(Counter(row % 3 for row in kept).values())
    for n in range(1, 3 * n_least + 1):
        counts = Counter(pair.source for pair in pairs[:n])
        assert max(counts.values()) - min(counts.get(source, 0) for source in SOURCES) <= 1
    assert sum(counts.values()) == 3 * n_least < len(pairs)


def test_each_side_holds_the_selected_one_equally_often(scores, kept):
    for seed in range(5):
        pairs = of_kind(draw(scores, kept, seed=seed), "compare")
        assert Counter(pair.target for pair in pairs) == {"first": N_PAIRS / 2, "second": N_PAIRS / 2}


def test_repetitions_are_swapped_and_come_late(scores, kept):
    pairs = draw(scores, kept)
    positions = {pair.token: position for position, pair in enumerate(pairs)}
    repeats = of_kind(pairs, "repeat")
    assert len(repeats) == -(-N_PAIRS // BLOCK)
    for pair in repeats:
        before = pairs[positions[pair.repeats]]
        assert before.kind == "compare"
        assert (pair.first, pair.second) == (before.second, before.first)
        assert pair.target == other_side(before.target)
        assert positions[pair.token] - positions[before.token] >= 5


def test_shuffled_samples_stand_against_themselves(scores, kept):
    pairs = of_kind(draw(scores, kept), "shuffled")
    assert len(pairs) == -(-N_PAIRS // BLOCK)
    assert all(pair.first == pair.second for pair in pairs)


def test_no_more_pairs_than_rows(scores, kept):
    assert len(of_kind(draw(scores, kept, n_pairs=500), "compare")) == len(kept)


def test_nothing_to_compare(scores, kept):
    with pytest.raises(SettingsError, match="nothing to compare"):
        draw(scores, kept, "itself", other=kept)
    with pytest.raises(SettingsError, match="nothing to compare"):
        draw(scores, np.arange(len(scores)), "left")

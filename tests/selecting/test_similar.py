"""What the embeddings are used for: blocks of similar rows, near duplicates, the most diverse rows, clusters."""

from pathlib import Path

import numpy as np
import pytest

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.runs import RunFolder
from delta_attnmask.scores import embedding_table
from delta_attnmask.selecting.candidates import Candidates
from delta_attnmask.selecting.rules import make_rule
from delta_attnmask.selecting.rules.diverse import k_center
from delta_attnmask.selecting.run_selection import read_embeddings
from delta_attnmask.selecting.selector import Background, select_rows
from delta_attnmask.selecting.similarity import (
    centred,
    default_clusters,
    similar_blocks,
    with_clusters,
    without_copies,
    without_near_duplicates,
)
from delta_attnmask.selecting.strata import strata_of, strata_of_values
from tests.selecting.tables import make_scores, make_table, write_run

WIDTH = 16


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def in_groups(n_groups: int, n_each: int, spread: float = 0.02) -> np.ndarray:
    """Unit vectors in tight groups, one group after the other."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(n_groups, WIDTH)), n_each, axis=0)
    return unit(centres + spread * rng.normal(size=centres.shape))


def make_candidates(vectors: np.ndarray, *texts: list[str], keys: list[str] | None = None) -> Candidates:
    """Candidates whose value falls from row to row."""
    values = -np.arange(float(len(vectors)))
    table = make_table(values.tolist(), *texts)
    if keys is not None:
        table = table.set_column(table.column_names.index("key"), "key", [keys])
    return Candidates(values, table, np.arange(len(values)), lambda rows: vectors[rows])


def test_blocks_hold_each_row_once_and_similar_ones_together():
    vectors, groups = in_groups(8, 50), np.repeat(np.arange(8), 50)
    order = np.random.default_rng(1).permutation(400)
    strata = strata_of_values(groups[order] % 2)
    blocks = list(similar_blocks(vectors[order], strata, max_rows=60))
    assert sorted(np.concatenate(blocks).tolist()) == list(range(400))
    assert max(map(len, blocks)) <= 60
    assert all(len(set(strata.codes[block])) == 1 for block in blocks)
    n_groups = [len(set(groups[order][block])) for block in blocks]
    assert np.mean(n_groups) < 1.5


def test_what_all_vectors_share_is_taken_away():
    vectors = unit(in_groups(2, 3).astype(float) + 100)
    floats = centred(vectors)
    np.testing.assert_allclose(np.linalg.norm(floats, axis=1), 1, rtol=1e-5)
    assert vectors[0].astype(float) @ vectors[5] > 0.99
    assert floats[0] @ floats[5] < 0
    assert np.isfinite(centred(np.ones((3, 4), dtype=np.float16))).all()


def test_of_the_same_bytes_the_best_stays():
    candidates = make_candidates(in_groups(4, 1), keys=["a", "b", "a", "c"])
    found = without_copies(candidates)
    assert found.indices.tolist() == [0, 1, 3]
    assert without_copies(candidates, np.array([0, 1, 2, 1])).indices.tolist() == [0, 1, 2]
    assert found.values.tolist() == [0, -1, -3]


def test_of_near_copies_the_best_stays():
    found = without_near_duplicates(make_candidates(in_groups(6, 4)), 0.95)
    assert found.indices.tolist() == [0, 4, 8, 12, 16, 20]
    by_source = without_near_duplicates(make_candidates(in_groups(6, 4), ["a", "b"] * 12), 0.95)
    assert len(by_source) == 12  # rows of other sources say it in another way


def test_a_chain_of_near_copies_doesnt_take_all_of_it():
    angles = np.radians([0, 10, 20, 180, 190, 200])  # their mean is 0
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float16)
    found = without_near_duplicates(make_candidates(vectors), np.cos(np.radians(15)))
    assert found.indices.tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize("min_cosine", [0, -1, 1, 1.1])
def test_no_cosine(min_cosine):
    with pytest.raises(SettingsError, match="expected a cosine such as"):
        without_near_duplicates(make_candidates(in_groups(2, 1)), min_cosine)


def test_k_center_takes_one_of_each_group_first():
    vectors = centred(in_groups(5, 10))
    picks = k_center(vectors, first=3, n_keep=50)
    assert picks[0] == 3
    assert sorted(pick // 10 for pick in picks[:5]) == [0, 1, 2, 3, 4]
    assert sorted(picks.tolist()) == list(range(50))


def test_diverse_rows_of_the_highest():
    vectors = np.concatenate([np.repeat(in_groups(5, 1), 8, axis=0), in_groups(1, 60)])
    candidates = make_candidates(vectors, ["a", "b"] * 50)
    top = make_rule("top", {}).choose(candidates, 10).positions
    diverse = make_rule("diverse", {"pool": 4}).choose(candidates, 10)
    assert {row // 8 for row in top} == {0, 1}
    assert {row // 8 for row in diverse.positions} == {0, 1, 2, 3, 4}
    assert diverse.positions.tolist() == sorted(diverse.positions.tolist())  # best first, and within the 40 highest
    assert diverse.details["n_pool"] == 40
    within = make_rule("diverse", {"quota_by": "source", "pool": 4})
    both = within.choose(candidates, 10).positions
    assert [sum(both % 2 == source) for source in (0, 1)] == [5, 5]
    assert within.choose(candidates, 10).positions.tolist() == both.tolist()


def test_clusters_as_a_column():
    candidates = make_candidates(in_groups(4, 25)).take(np.arange(10, 100))
    found = with_clusters(candidates, 4)
    codes = strata_of(found.table, ["cluster"]).codes
    groups = [set(codes[start : start + 25]) for start in (15, 40, 65)]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == 3
    assert found.table["cluster"].to_pylist() == with_clusters(candidates, 4).table["cluster"].to_pylist()
    assert [default_clusters(n) for n in (10, 2000, 10**7)] == [2, 10, 256]


def test_without_embeddings_the_fix_is_named():
    with pytest.raises(SettingsError, match="score into a new folder with --embeddings"):
        select_rows(make_table([0.0, 1.0, 2.0]), 1, rule="diverse")


class InMemory:
    """Scores with their embeddings, as the library holds them."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.table = make_table((-np.arange(float(len(vectors)))).tolist())
        self.background = Background(embed=lambda rows: vectors[rows])


def test_a_quota_by_clusters_in_memory():
    selection = select_rows(InMemory(in_groups(5, 20)), 5, quota_by="cluster", clusters=5)
    assert sorted(selection.indices.tolist()) == [0, 20, 40, 60, 80]
    assert selection.report["n_clusters"] == 5
    distinct = select_rows(InMemory(in_groups(5, 20)), 5, rule="top", near_duplicates=0.95)
    assert distinct.indices.tolist() == [0, 20, 40, 60, 80]
    assert distinct.report["n_near_duplicates"] == 95


def write_embeddings(run: RunFolder, vectors: np.ndarray, left_out: int) -> None:
    """Side tables as scoring writes them; a row without a score has no vector."""
    import pyarrow.parquet as pq

    (run.path / "embeddings").mkdir()
    for unit_idx in range(run.n_units):
        rows = [row for row in run.unit_rows(unit_idx) if row != left_out]
        pq.write_table(
            embedding_table({row: vectors[row] for row in rows}, vectors.shape[1]),
            run.unit_path(unit_idx, "embeddings"),
        )


def test_vectors_are_read_back_in_any_order(tmp_path: Path):
    vectors = in_groups(100, 1)
    run = write_run(tmp_path, make_scores([1.0] * 100), embeddings="here")
    write_embeddings(run, vectors, left_out=70)
    rows = np.array([99, 3, 64, 63, 0])
    assert (read_embeddings(run, rows) == vectors[rows]).all()
    assert read_embeddings(run, np.array([], dtype=np.int64)).shape == (0, 0)
    with pytest.raises(ArtifactError, match=r"unit-00001.parquet lacks rows that have a score"):
        read_embeddings(run, np.array([70]))
    with pytest.raises(SettingsError, match="has no embeddings"):
        read_embeddings(write_run(tmp_path / "other", make_scores([1.0])), rows)

"""The review's file: rows are only added, each answer once, by many at a time, and durably."""

import secrets
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, product, zip_longest
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.reviewing.begin import Wanted, begin_review
from delta_attnmask.reviewing.store import ReviewStore

TABLES = ("review", "pair", "rater", "judgement")


def raw(store: ReviewStore) -> sqlite3.Connection:
    """The file as any other program sees it."""
    return sqlite3.connect(store.path)


def dump(store: ReviewStore) -> list[str]:
    with closing(raw(store)) as connection:
        return list(connection.iterdump())


@pytest.fixture
def filled(store):
    ann = store.enter("Ann")
    store.judge(ann, store.pairs()[0], "clarity", "first", "n1")
    store.judge(ann, store.pairs()[0], "correctness", "equal", "n2")
    return store


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET rowid = rowid", "INSERT OR REPLACE INTO {} {}"])
def test_nothing_is_ever_changed_or_removed(filled, table, change):
    before = dump(filled)
    statement = change.format(table, f"SELECT * FROM {table} LIMIT 1")
    with closing(raw(filled)) as connection, pytest.raises(sqlite3.IntegrityError, match=f"{table} is append-only"):
        connection.execute(statement)
    assert dump(filled) == before


def test_answers_are_synced_before_anything_else_happens(store):
    (level,) = store._connection.execute("PRAGMA synchronous").fetchone()
    (journal,) = store._connection.execute("PRAGMA journal_mode").fetchone()
    assert (level, journal) == (2, "wal")  # 2 is FULL: fsync at every commit


def test_an_answer_supersedes_the_one_before(filled):
    ann, pair = filled.enter("Ann"), filled.pairs()[0]
    filled.judge(ann, pair, "clarity", "second", "n3")
    assert filled.answers(ann) == {(0, "clarity"): "second", (0, "correctness"): "equal"}
    assert [(one.rater, one.question, one.answer) for one in filled.judgements()] == [
        ("Ann", "correctness", "equal"),
        ("Ann", "clarity", "second"),
    ]
    with closing(raw(filled)) as connection:
        rows = connection.execute("SELECT answer, supersedes FROM judgement ORDER BY id").fetchall()
    assert rows == [("first", None), ("equal", None), ("second", 1)]


def test_undo_goes_back_one_by_one(filled):
    ann, pair = filled.enter("Ann"), filled.pairs()[0]
    filled.undo(ann, "u1")
    assert filled.answers(ann) == {(0, "clarity"): "first"}
    filled.undo(ann, "u1")  # the same request, sent again as its answer was lost
    assert filled.answers(ann) == {(0, "clarity"): "first"}
    filled.undo(ann, "u2")
    filled.undo(ann, "u3")  # nothing is left
    assert filled.answers(ann) == {}
    filled.judge(ann, pair, "correctness", "unknown", "n4")
    assert filled.answers(ann) == {(0, "correctness"): "unknown"}
    with closing(raw(filled)) as connection:
        assert connection.execute("SELECT count(*) FROM judgement").fetchone() == (5,)


ACTS = st.lists(st.sampled_from([*product(range(2), ("clarity", "overall"), ("first", "equal")), None]), max_size=8)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTS, ACTS)
def test_any_order_of_answers_and_undoings(store, anns, bens):
    """Two raters in turns, against two plain lists of what stands."""
    raters = [store.enter(secrets.token_hex(8)) for _ in range(2)]
    standing: list[dict[tuple[int, str], str]] = [{}, {}]
    turns = zip_longest([(0, act) for act in anns], [(1, act) for act in bens])
    for who, act in filter(None, chain.from_iterable(turns)):
        if act is None:
            store.undo(raters[who], secrets.token_hex(8))
            standing[who] = dict(list(standing[who].items())[:-1])
        else:
            position, question, answer = act
            store.judge(raters[who], store.pairs()[position], question, answer, secrets.token_hex(8))
            standing[who].pop((position, question), None)
            standing[who][position, question] = answer
    assert [store.answers(rater) for rater in raters] == standing


def test_undo_is_the_raters_own(filled):
    ann, ben = filled.enter("Ann"), filled.enter("Ben")
    filled.undo(ben, "u1")
    assert len(filled.answers(ann)) == 2
    assert filled.answers(ben) == {}


def test_what_is_sent_twice_counts_once(filled):
    ann, pair = filled.enter("Ann"), filled.pairs()[0]
    filled.judge(ann, pair, "overall", "first", "n5")
    filled.judge(ann, pair, "overall", "second", "n6")
    filled.judge(ann, pair, "overall", "first", "n5")
    assert filled.answers(ann)[0, "overall"] == "second"


def test_names(store):
    ann = store.enter("Ann  Müller ")
    assert ann.name == "Ann Müller"
    assert store.enter("ann mu\u0308ller") == ann  # letters apart or together, large or small
    for name in ("", "  ", "x" * 41, "a\x1b[31m", "a\u202eb"):
        with pytest.raises(SettingsError, match="name: expected 1 to 40"):
            store.enter(name)
    assert store.raters() == (ann,)


def test_only_answers_to_questions_of_the_pair(store):
    ann, pairs = store.enter("Ann"), store.pairs()
    sheet = next(pair for pair in pairs if pair.kind == "sheet")
    for pair, question, answer in [(sheet, "clarity", "first"), (pairs[0], "coverage", "first")]:
        with pytest.raises(SettingsError, match="not one of this pair's"):
            store.judge(ann, pair, question, answer, "n")
    with pytest.raises(SettingsError, match="expected one of first, second, equal, unknown"):
        store.judge(ann, pairs[0], "clarity", "third", "n")
    assert store.judgements() == []


def test_many_raters_at_a_time(store):
    """Eight threads over four connections, as from several processes; every answer is there, none twice."""
    pairs = [pair for pair in store.pairs() if pair.kind == "compare"][:5]
    stores = [store, *(ReviewStore.open(store.path) for _ in range(3))]

    def judge(n: int) -> None:
        own = stores[n % len(stores)]
        rater = own.enter(f"Rater {n // 2}")  # two threads share each name
        for pair in pairs:
            own.judge(rater, pair, "clarity", ("first", "second")[n % 2], f"{n}/{pair.position}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(judge, range(8)))
    assert len(store.judgements()) == 4 * len(pairs)
    with closing(raw(store)) as connection:
        assert connection.execute("SELECT count(*), count(supersedes) FROM judgement").fetchone() == (40, 20)
    for other in stores[1:]:
        other.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from delta_attnmask.reviewing.store import ReviewStore
store = ReviewStore.open(Path(sys.argv[1]))
rater, pairs = store.enter("Ann"), store.pairs()
for position in range(3):
    store.judge(rater, pairs[position], "clarity", "first", str(position))
store._connection.execute("BEGIN IMMEDIATE")
store._connection.execute("INSERT INTO rater (name, folded, created) VALUES ('half', 'half', '')")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing_that_it_stored(store):
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.path)], check=False)
    assert done.returncode == -9
    assert [one.position for one in store.judgements()] == [0, 1, 2]
    assert [rater.name for rater in store.raters()] == ["Ann"]
    store.judge(store.enter("Ann"), store.pairs()[3], "clarity", "first", "3")  # and the lock is free
    assert len(store.judgements()) == 4


def test_going_on(store, run, scored):
    wanted = Wanted(selection=scored / "kept.json", against="random", n_pairs=20, seed=0)
    for again in (begin_review(run, store.path, wanted), begin_review(run, store.path, Wanted())):
        assert again.pairs() == store.pairs()
        assert again.review == store.review
        again.close()


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
def test_another_choice_is_refused_and_named(store, run, scored, change, named):
    paths = {name: scored / value if str(value).endswith("json") else value for name, value in change.items()}
    if "against" in paths:
        paths["against"] = str(paths["against"])
    with pytest.raises(ArtifactError, match=f"begun with other {named};"):
        begin_review(run, store.path, Wanted(**paths))


def test_another_run_is_refused(store, scored):
    from delta_attnmask.artifacts import RunFolder

    with pytest.raises(ArtifactError, match="reviews another run"):
        begin_review(RunFolder.open(scored / "another"), store.path, Wanted())
    with pytest.raises(ArtifactError, match="made of another run"):
        begin_review(
            RunFolder.open(scored / "run"), store.path.with_name("new"), Wanted(selection=scored / "another.json")
        )


def test_what_is_no_review(tmp_path, run, scored):
    with pytest.raises(ArtifactError, match="holds no review"):
        ReviewStore.open(tmp_path / "none.sqlite")
    (tmp_path / "text").write_text("hello " * 100)
    with pytest.raises(ArtifactError, match="file is not a database"):
        ReviewStore.open(tmp_path / "text")
    with closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE mine (a)")
    for act in (ReviewStore.open, lambda path: begin_review(run, path, Wanted(selection=scored / "kept.json"))):
        with pytest.raises(ArtifactError, match="not of a review"):
            act(tmp_path / "other")
    with pytest.raises(SettingsError, match="expected the file that `select` wrote"):
        begin_review(run, tmp_path / "new.sqlite", Wanted())
    assert not (tmp_path / "new.sqlite").exists()


def test_a_review_of_another_version(store):
    with closing(raw(store)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ArtifactError, match=r"another version \(99\)"):
        ReviewStore.open(store.path)


def test_a_file_whose_writing_was_cut_off_is_begun_anew(tmp_path, run, scored):
    (tmp_path / "empty.sqlite").touch()
    store = begin_review(run, tmp_path / "empty.sqlite", Wanted(selection=scored / "kept.json", n_pairs=3))
    assert len([pair for pair in store.pairs() if pair.kind == "compare"]) == 3
    store.close()


def test_two_that_begin_at_once_share_one_review(tmp_path, run, scored):
    wanted = Wanted(selection=scored / "kept.json", n_pairs=4)

    def begin(path: Path) -> tuple[str, ...]:
        store = begin_review(run, path, wanted)
        tokens = tuple(pair.token for pair in store.pairs())
        store.close()
        return tokens

    with ThreadPoolExecutor(4) as pool:
        for n in range(20):  # who comes between which statements is chance
            assert len(set(pool.map(begin, [tmp_path / f"{n}.sqlite"] * 4))) == 1

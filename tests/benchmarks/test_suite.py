"""The suite's rows and its defects; skipped where the packages haven't been fetched (`python -m benchmarks.suite`)."""

import random
import re
from collections import Counter

import pytest
from benchmarks.suite.build import Sizes, draw_source, has_assets, pool_sizes
from benchmarks.suite.packages import CACHE, COUNTRIES, EMOJIBASE, FLAGS, MAPS, MNIST
from benchmarks.suite.planting import plant, words_of
from benchmarks.suite.sources import SOURCES
from benchmarks.suite.statements import ALL, PART, lessons, paraphrase
from embedded.concepts import by_label
from embedded.sample import is_right

is_fetched = has_assets() and all((CACHE / one.archive).exists() for one in (MNIST, FLAGS, COUNTRIES, MAPS, EMOJIBASE))
needs_packages = pytest.mark.skipif(not is_fetched, reason="the suite's packages aren't here")


@pytest.fixture(scope="module")
def drawn():
    return {name: draw_source(random.Random(1), name, source, "pool", 12) for name, source in SOURCES.items()}


@needs_packages
@pytest.mark.parametrize("name", SOURCES)
def test_rows_are_right_and_blank_pictures_make_some_wrong(name, drawn):
    rows = drawn[name]
    assert len(rows) == 12
    assert all(is_right(row.turns[0].question, row.facts, row.turns[0].answer) for row in rows)
    blank = SOURCES[name].blank(random.Random(0))
    assert not all(is_right(row.turns[0].question, blank.facts, row.turns[0].answer) for row in rows)


@needs_packages
def test_defects_are_wrong_rows_of_known_words_at_the_rate_asked_for():
    rng = random.Random(2)
    rows = [row for name, source in SOURCES.items() for row in draw_source(rng, name, source, "pool", 20)]
    words = words_of(rows)
    plant(rng, rows, 0.3)
    assert Counter(row.source for row in rows if row.defect) == dict.fromkeys(SOURCES, 6)
    assert len({row.defect for row in rows if row.defect}) >= 8
    for row in rows:
        assert (row.defect is None) == is_right(row.turns[0].question, row.facts, row.turns[0].answer)
    assert words_of(rows) <= words


@needs_packages
def test_the_same_seed_draws_the_same_rows():
    texts = [
        [
            (row.turns[0].asked, row.turns[0].answer)
            for row in draw_source(random.Random(3), "flags", source, "test", 20)
        ]
        for source in (SOURCES["flags"], SOURCES["flags"])
    ]
    assert texts[0] == texts[1]


@needs_packages
@pytest.mark.parametrize("name", ["emoji", "scene"])
def test_lessons_never_name_what_is_held_out(name):
    held_out = [label for label in by_label() if not PART.tells(label)]
    assert held_out
    assert not _named(name, held_out, PART)
    assert _named(name, held_out, ALL)


def _named(source, labels, curriculum):
    drawn = lessons(random.Random(4), source, 60, curriculum=curriculum)
    taught = [f"{lesson.asked} {lesson.answer}" for lesson in drawn]
    return [text for text in taught for label in labels if re.search(rf"\b{label}\b", text)]


def test_a_paraphrase_drops_the_clause_that_asks_for_a_form():
    assert paraphrase("What is this called in German? Answer briefly.") == "tell what is this named in german?"


def test_skewed_sizes_keep_the_sum():
    names = list(SOURCES)
    skewed = pool_sizes(Sizes(pool=100, skewed=True), names)
    assert sum(skewed.values()) == pytest.approx(100 * len(names), abs=len(names))
    assert skewed[names[0]] > 5 * skewed[names[-1]]

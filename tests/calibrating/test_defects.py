"""Planted defects are made of the data itself, and make a row wrong."""

import random
import re
from dataclasses import replace

import pytest

from delta_attnmask.calibrating.planting import DEFECTS, Donors, exchanges, plant, stratified_sample
from delta_attnmask.records import ImageRef, Record, Turn

QUESTIONS = ["What colour is it?", "Is it red?", "How many are there?", "Describe the picture."]
ANSWERS = [
    ["red", "blue", "green"],
    ["yes", "no"],
    ["2", "3", "5"],
    ["A red ball on the left of two boxes.", "A blue cat."],
]


def make_records(n: int, seed: int = 0, sources: tuple[str, ...] = ("a", "b")) -> list[Record]:
    rng = random.Random(seed)
    records = []
    for row in range(n):
        kind = rng.randrange(len(QUESTIONS))
        turns = (
            Turn("user", (None, QUESTIONS[kind])),
            Turn("assistant", (rng.choice(ANSWERS[kind]),)),
        )
        source = sources[min(int(rng.random() * 2 * len(sources)), len(sources) - 1)]
        records.append(
            Record(
                row=row,
                key=f"{row * 2654435761 % 2**32:08x}",
                source=source,
                turns=turns,
                images=(ImageRef(f"{row}.png"),),
            )
        )
    return records


def words(record: Record) -> set[str]:
    return {word for _, answer in exchanges(record) for word in re.findall(r"\w+", answer.lower())}


@pytest.mark.parametrize("kind", sorted(DEFECTS))
def test_a_defect_changes_the_row_and_brings_no_new_word(kind: str) -> None:
    records = make_records(200)
    donors, rng = Donors(records), random.Random(1)
    vocabulary = set().union(*map(words, records))
    changed = [(record, copy) for record in records if (copy := DEFECTS[kind](record, donors, rng)) is not None]
    assert len(changed) >= 20
    for record, copy in changed:
        assert (copy.turns, copy.images) != (record.turns, record.images)
        assert words(copy) <= vocabulary
        assert [turn.role for turn in copy.turns] == [turn.role for turn in record.turns]
        assert sum(part is None for turn in copy.turns for part in turn.parts) == len(copy.images)


def test_swapped_answers_differ_from_the_original_and_stay_in_the_source() -> None:
    records = make_records(100)
    donors, rng = Donors(records), random.Random(2)
    for record in records:
        copy = DEFECTS["answer_same_question"](record, donors, rng)
        if copy is not None:
            [(question, answer)], [(_, original)] = exchanges(copy), exchanges(record)
            assert answer != original
            assert answer in donors.answers_to[record.source, question]


def test_a_swapped_image_comes_from_a_row_that_answers_the_question_otherwise() -> None:
    records = make_records(100)
    by_image = {record.images[0]: record for record in records}
    donors, rng, n_swapped = Donors(records), random.Random(3), 0
    for record in records:
        copy = DEFECTS["image_swapped"](record, donors, rng)
        if copy is None:
            continue
        n_swapped += 1
        donor = by_image[copy.images[0]]
        assert donor.source == record.source
        assert exchanges(donor)[0][0] != exchanges(record)[0][0] or exchanges(donor)[0][1] != exchanges(record)[0][1]
    assert n_swapped > 90


def test_near_defects_are_the_nearest_that_say_something_else() -> None:
    records = make_records(100)
    by_image = {record.images[0]: record for record in records}
    donors, rng = Donors(records), random.Random(3)
    record = next(one for one in records if exchanges(one)[0][0] == "How many are there?")
    near = DEFECTS["image_near"](record, donors, rng)
    assert near is not None
    [(question, answer)] = exchanges(by_image[near.images[0]])
    assert (question, answer != exchanges(record)[0][1]) == ("How many are there?", True)
    long = next(one for one in records if exchanges(one)[0][1] == "A blue cat.")
    changed = {exchanges(DEFECTS["word_changed"](long, donors, rng))[0][1] for _ in range(20)}
    assert changed == {"A red cat."}
    assert exchanges(DEFECTS["answer_near"](long, donors, rng))[0][1] == "A red ball on the left of two boxes."


def test_blank_keeps_the_reference() -> None:
    [record] = make_records(1)
    copy = DEFECTS["image_blank"](record, Donors([record]), random.Random(0))
    assert copy is not None
    assert copy.images == (replace(record.images[0], is_blank=True),)


def test_text_only_rows_get_no_image_defect() -> None:
    record = Record(row=0, key="00", turns=(Turn("user", ("Name a colour.",)), Turn("assistant", ("red",))))
    donors = Donors([record, *make_records(10)])
    assert DEFECTS["image_swapped"](record, donors, random.Random(0)) is None
    assert DEFECTS["image_blank"](record, donors, random.Random(0)) is None


def test_every_turn_of_a_conversation_is_changed() -> None:
    turns = (
        Turn("user", (None, "What is it?")),
        Turn("assistant", ("A red ball on a box.",)),
        Turn("user", ("And now?",)),
        Turn("assistant", ("A blue cat in a tree.",)),
    )
    record = Record(row=0, key="00", turns=turns, images=(ImageRef("x.png"),))
    copy = DEFECTS["words_shuffled"](record, Donors([record]), random.Random(0))
    assert copy is not None
    for (_, before), (_, after) in zip(exchanges(record), exchanges(copy), strict=True):
        assert before != after
        assert sorted(before.split()) == sorted(after.split())


def test_sample_takes_small_sources_whole_and_shares_the_rest() -> None:
    records = make_records(400, sources=("small", "large"))
    records = [r for r in records if r.source == "large"] + [r for r in records if r.source == "small"][:10]
    sample = stratified_sample(records, 100, seed=0)
    assert len(sample) == 100
    assert sum(record.source == "small" for record in sample) == 10
    assert sample == stratified_sample(records, 100, seed=0)
    assert [record.row for record in sample] == sorted(record.row for record in sample)


def test_planting_is_balanced_paired_and_reproducible() -> None:
    records = make_records(120)
    planted = plant(records, Donors(records), copies_per_row=3, seed=0)
    again = plant(records, Donors(records), copies_per_row=3, seed=0)
    assert planted == again
    assert [record.row for record in planted.records] == list(range(len(planted.records)))
    assert planted.kind[:120] == [""] * 120
    counts = {kind: planted.kind.count(kind) for kind in planted.kinds}
    assert min(counts.values()) >= 20
    assert set(planted.fold) == set(range(10))
    for index, (first, fold) in enumerate(zip(planted.original, planted.fold, strict=True)):
        assert planted.fold[first] == fold
        assert (planted.kind[index] == "") == (first == index)
    per_original = [planted.original.count(first) - 1 for first in range(120)]
    assert max(per_original) <= 3


def test_a_kind_that_few_rows_can_have_is_left_out() -> None:
    records = make_records(60)
    single = [r for r in records if len(exchanges(r)[0][1].split()) < 3]
    planted = plant(single, Donors(single), copies_per_row=3, seed=0)
    assert "words_shuffled" not in planted.kinds
    assert "truncated" not in planted.kinds

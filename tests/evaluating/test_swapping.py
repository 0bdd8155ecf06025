"""Which row lends its images to which."""

from hypothesis import given
from hypothesis import strategies as st

from delta_attnmask.evaluating.asking import choose_lenders
from delta_attnmask.records import ImageRef, Record


def record(row: int, source: str, *images: str, reason: str = "") -> Record:
    return Record(
        row,
        f"{row:064x}",
        source=source,
        images=tuple(map(ImageRef, images)),
        reason=reason,
        reason_code="no_answer" if reason else "",
    )


rows_of_images = st.lists(
    st.tuples(st.sampled_from("ab"), st.lists(st.sampled_from("xyz"), max_size=2).map(tuple)), max_size=12
)


@given(rows_of_images, st.integers(0, 5))
def test_lenders_are_other_rows_of_the_source_with_as_many_other_images(
    rows: list[tuple[str, tuple[str, ...]]], seed: int
) -> None:
    records = [record(row, source, *images) for row, (source, images) in enumerate(rows)]
    lenders = choose_lenders(records, seed)
    for one in records:
        fitting = [
            other
            for other in records
            if other.source == one.source and len(other.images) == len(one.images) and other.images != one.images
        ]
        assert (one.row in lenders) == bool(fitting and one.images)
        if one.row in lenders:
            row, images = lenders[one.row]
            assert records[row] in fitting
            assert images == records[row].images


def test_different_images_are_each_lent_once() -> None:
    lenders = choose_lenders([record(row, "s", f"{row}.png") for row in range(20)], seed=0)
    assert sorted(row for row, _ in lenders.values()) == list(range(20))


def test_bad_rows_and_rows_alone_in_their_source_are_left_out() -> None:
    rows = [record(0, "s", "a"), record(1, "s", "b"), record(2, "s", "c", reason="bad"), record(3, "t", "d")]
    lenders = choose_lenders(rows, seed=0)
    assert {row: lender for row, (lender, _) in lenders.items()} == {0: 1, 1: 0}


def test_the_seed_decides() -> None:
    rows = [record(row, "s", f"{row}.png") for row in range(50)]
    assert choose_lenders(rows, 1) == choose_lenders(rows, 1)
    assert choose_lenders(rows, 1) != choose_lenders(rows, 2)

"""The gallery: which rows are shown, and their cards. Only these rows are read from the data. No torch here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from delta_attnmask.errors import DataError, RowError
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import ImageRef, Record
from delta_attnmask.reporting.page import Thumbnail, embed_image
from delta_attnmask.reporting.standing import Standing
from delta_attnmask.reporting.words import write_number
from delta_attnmask.selecting.candidates import Positions

GROUPS = {
    "top": "Highest scores",
    "bottom": "Lowest scores",
    "cut": "Around the cut",
    "random": "Random",
    "failed": "Failed",
}
MAX_CARDS = 500
_N_IMAGES = 4  # of a card

Inspect = Callable[[int], Markup | None]  # row → what is shown below its card


@dataclass(frozen=True)
class Picture:
    """One image. thumbnail: None if `problem` says why it isn't shown."""

    name: str
    thumbnail: Thumbnail | None
    problem: str = ""


@dataclass
class Card:
    """One row of the gallery. status: "kept", "left" or "failed". groups: names in `GROUPS`.

    numbers: by name. why: kept, left or failed. record: the conversation; None if `problem` says why it isn't shown.
    """

    row: int
    id: str
    source: str
    status: str
    groups: list[str]
    why: str
    numbers: Mapping[str, object] = field(default_factory=dict)
    record: Record | None = None
    pictures: Sequence[Picture] = ()
    problem: str = ""
    inspection: Markup | None = None


@dataclass
class Reader:
    """The input as cards need it. dataset: None if `problem` says why it can't be read; then cards have no text."""

    dataset: Rows | None
    problem: str = ""
    max_thumbnails: int = 500  # on the whole page
    n_thumbnails: int = field(default=0, init=False)

    def fill(self, card: Card, key: str) -> None:
        """Put the conversation and the pictures of its row into a card; key: SHA-256 of the row that was scored."""
        if self.dataset is None:
            return
        record = next(self.dataset.records(card.row, card.row + 1), None)
        if record is None or record.key != key:
            card.problem = "The data file no longer holds the row that was scored."
            return
        card.record = record
        card.pictures = [self._show(self.dataset, ref) for ref in record.images[:_N_IMAGES]]

    def _show(self, dataset: Rows, ref: ImageRef) -> Picture:
        shown = str(ref)
        if self.n_thumbnails >= self.max_thumbnails:
            return Picture(shown, None, f"only {self.max_thumbnails} images are shown")
        try:
            thumbnail = embed_image(dataset.load_image(ref))
        except RowError as error:
            return Picture(shown, None, str(error))
        self.n_thumbnails += 1
        return Picture(shown, thumbnail)


def open_reader(open_dataset: Callable[[], Rows], problem: str = "") -> Reader:
    """A reader that does without the data where it can't be opened, and says so."""
    try:
        dataset = open_dataset()
        dataset.n_rows  # noqa: B018  # finds the rows, and what is broken in the file
    except DataError as error:
        return Reader(None, str(error))
    return Reader(dataset, problem)


def make_cards(
    scores: pa.Table,
    standing: Standing | None,
    reader: Reader,
    n_cards: int,
    inspect: Inspect | None = None,
    n_inspected: int = 20,
) -> list[Card]:
    """At most `n_cards` cards, the groups of GROUPS alike, in the order of the groups.

    scores: of all rows. standing: None if no row can be kept. inspect: gives what is shown below a row's card, asked
    for `n_inspected` of them, from each group alike.
    """
    n_each = max(1, min(n_cards, MAX_CARDS) // len(GROUPS))
    cards = [] if standing is None else _candidate_cards(standing, n_each)
    cards += _failed_cards(scores, n_each)
    keys = scores["key"].take([card.row for card in cards]).to_pylist()
    for card, key in sorted(zip(cards, keys, strict=True), key=lambda pair: pair[0].row):  # as the file is laid out
        reader.fill(card, key)
    if inspect is not None:
        for card in _take_turns([card for card in cards if card.record], n_inspected):
            card.inspection = inspect(card.row)
    return cards


def pick(standing: Standing, n_each: int, seed: int = 0) -> dict[str, Positions]:
    """Candidates for each group but the failed: the highest, the lowest, those nearest to the cut, and random ones."""
    order = np.argsort(-standing.values, kind="stable")
    margins = standing.margins
    known = np.flatnonzero(np.isfinite(margins))
    nearest = known[np.argsort(np.abs(margins[known]), kind="stable")]
    half = -(-n_each // 2)
    kept, left = nearest[standing.is_kept[nearest]][:half], nearest[~standing.is_kept[nearest]][:half]
    n_random = min(n_each, len(standing))
    return {
        "top": order[:n_each],
        "bottom": order[::-1][:n_each],
        "cut": np.stack([kept, left], axis=1).ravel() if len(kept) == len(left) else np.concatenate([kept, left]),
        "random": np.random.default_rng(seed).choice(len(standing), n_random, replace=False),
    }


def explain(standing: Standing, position: int) -> str:
    """Why a candidate is kept or left, from its place in its stratum."""
    value, cut = standing.values[position], standing.cuts[standing.strata.codes[position]]
    rank, n_rows = standing.rank_in_stratum(position)
    where = f"rank {rank:,} of {n_rows:,} {_name_stratum(standing, position)}"
    if standing.is_kept[position]:
        return f"Kept: {where}, where the lowest kept score is {write_number(float(cut))}."
    if np.isnan(cut):
        return f"Left: {where}, of which none is kept."
    if value < cut:
        return f"Left: {where}, below the lowest kept score of {write_number(float(cut))}."
    return f"Left: {where}; it is not below the lowest kept score, but {_why_passed_over(standing)}."


def _take_turns(cards: Sequence[Card], n: int) -> list[Card]:
    """The first card of each group, then the second of each, until there are `n`."""
    groups = [[card for card in cards if name in card.groups] for name in GROUPS]
    in_turn = [card for cards_of_turn in zip_longest(*groups) for card in cards_of_turn if card is not None]
    return list({card.row: card for card in in_turn}.values())[:n]


def _candidate_cards(standing: Standing, n_each: int) -> list[Card]:
    groups = dict[int, list[str]]()
    for group, positions in pick(standing, n_each).items():
        for position in positions.tolist():
            groups.setdefault(position, []).append(group)
    table = standing.table.take(list(groups))
    return [
        Card(
            row=line["row"],
            id=line["id"],
            source=line["source"],
            status="kept" if standing.is_kept[position] else "left",
            groups=names,
            why=explain(standing, position),
            numbers=_numbers(standing, position, line),
        )
        for (position, names), line in zip(groups.items(), table.to_pylist(), strict=True)
    ]


def _failed_cards(scores: pa.Table, n_each: int) -> list[Card]:
    """Failed rows at even distances."""
    failed = np.flatnonzero(pc.equal(scores["status"], "failed").to_numpy())
    some = failed[np.unique(np.linspace(0, max(0, len(failed) - 1), min(n_each, len(failed))).astype(int))]
    return [
        Card(line["row"], line["id"], line["source"], "failed", ["failed"], f"Failed: {line['reason']}")
        for line in scores.take(some).select(["row", "id", "source", "reason"]).to_pylist()
    ]


def _numbers(standing: Standing, position: int, line: Mapping[str, object]) -> dict[str, object]:
    return {
        standing.selection.column: float(standing.values[position]),
        "rank": f"{standing.rank(position):,} of {len(standing):,}",
        **{name: line[name] for name in ("loss", "delta") if name != standing.selection.column},
        "answer tokens": line["n_answer_tokens"],
    }


def _name_stratum(standing: Standing, position: int) -> str:
    columns = standing.selection.quota_by
    values = [str(standing.table[name][position].as_py()) or "(none)" for name in columns]
    return f"rows in {' / '.join(values)}" if values else "rows"


def _why_passed_over(standing: Standing) -> str:
    """What a rule but the plain top may have against a high score."""
    selection = standing.selection
    if selection.rule == "diverse":
        return "the rule prefers rows that differ from those kept already"
    if selection.rule == "band" or selection.options.get("skip_top"):
        return "the rule leaves out the top"
    return "others of the same score came first"

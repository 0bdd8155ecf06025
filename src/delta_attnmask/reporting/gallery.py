"""The gallery: which rows are shown, and their cards. Only these rows are read from the data. No torch here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from delta_attnmask.errors import RowError
from delta_attnmask.reading.rows import Rows
from delta_attnmask.records import ImageRef, Record
from delta_attnmask.reporting.page import Thumbnail, embed_image
from delta_attnmask.reporting.standing import Standing
from delta_attnmask.reporting.words import write_number
from delta_attnmask.selecting.candidates import Candidates, Positions

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

    why: kept, left or failed. numbers: by name. record: the conversation; None where the data can't be read.
    """

    row: int
    id: str
    source: str
    status: str
    groups: Sequence[str]
    why: str
    numbers: Mapping[str, object] = field(default_factory=dict)
    record: Record | None = None
    pictures: Sequence[Picture] = ()
    inspection: Markup | None = None


def make_cards(
    scores: pa.Table,
    standing: Standing | None,
    dataset: Rows | None,
    n_cards: int,
    inspect: Inspect | None = None,
    n_inspected: int = 20,
) -> list[Card]:
    """At most `n_cards` cards: the groups of GROUPS in turn, the failed rows last.

    scores: of all rows. standing: None if no row can be kept. dataset: what was scored; without it cards have no text.
    inspect: gives what is shown below a row's card, asked for the first `n_inspected`.
    """
    n_each = max(1, min(n_cards, MAX_CARDS) // len(GROUPS))
    cards = [] if standing is None else _candidate_cards(standing, n_each)
    cards += _failed_cards(scores, n_each)
    return fill_cards(cards, dataset, inspect, n_inspected)


def fill_cards(
    cards: list[Card], dataset: Rows | None, inspect: Inspect | None = None, n_inspected: int = 20
) -> list[Card]:
    """The same cards with their texts and images, and inspections of the first."""
    if dataset is None:
        return cards
    for card in sorted(cards, key=lambda card: card.row):  # as the file is laid out
        (card.record,) = dataset.records(card.row, card.row + 1)
        card.pictures = [_show(dataset, ref) for ref in card.record.images[:_N_IMAGES]]
    if inspect is not None:
        for card in cards[:n_inspected]:
            card.inspection = inspect(card.row)
    return cards


def worst_cards(candidates: Candidates, column: str, n_cards: int) -> list[Card]:
    """The rows that a column ranks lowest, the lowest first."""
    order = np.argsort(candidates.values, kind="stable")[: min(n_cards, MAX_CARDS)]
    cards = []
    for rank, (position, line) in enumerate(zip(order, candidates.table.take(order).to_pylist(), strict=True), 1):
        numbers = {column: float(candidates.values[position])}
        numbers |= {name: line[name] for name in ("loss", "delta") if name != column}
        why = f"Number {rank:,} from below, of {len(candidates):,} rows by {column}."
        cards.append(Card(line["row"], line["id"], line["source"], "lowest", (), why, numbers))
    return cards


def pick(standing: Standing, n_each: int, seed: int = 0) -> dict[str, Positions]:
    """Candidates for each group but the failed: the highest, the lowest, those nearest to the cut, and random ones."""
    order = np.argsort(-standing.values, kind="stable")
    distances = np.abs(standing.values - standing.cuts[standing.strata.codes])  # NaN where nothing of a stratum is kept
    nearest = np.argsort(distances, kind="stable")[: np.count_nonzero(np.isfinite(distances))]
    half = -(-n_each // 2)
    kept, left = nearest[standing.is_kept[nearest]][:half], nearest[~standing.is_kept[nearest]][:half]
    n_random = min(n_each, len(standing))
    return {
        "top": order[:n_each],
        "bottom": order[::-1][:n_each],
        "cut": np.concatenate([kept, left]),
        "random": np.random.default_rng(seed).choice(len(standing), n_random, replace=False),
    }


def explain(standing: Standing, position: int) -> str:
    """Why a candidate is kept or left, from its place in its stratum."""
    value, cut = standing.values[position], standing.cuts[standing.strata.codes[position]]
    rank, n_rows = standing.rank_in_stratum(position)
    columns = standing.selection.quota_by
    stratum = " / ".join(str(standing.table[name][position].as_py()) or "(none)" for name in columns)
    where = f"rank {rank:,} of {n_rows:,} rows{f' in {stratum}' if stratum else ''}"
    if standing.is_kept[position]:
        return f"Kept: {where}, where the lowest kept score is {write_number(float(cut))}."
    if np.isnan(cut):
        return f"Left: {where}, of which none is kept."
    if value < cut:
        return f"Left: {where}, below the lowest kept score of {write_number(float(cut))}."
    rule = standing.selection.rule
    return f"Left: {where}; the rule {rule} passed it over, though it is not below the lowest kept score."


def _candidate_cards(standing: Standing, n_each: int) -> list[Card]:
    picked = {name: positions.tolist() for name, positions in pick(standing, n_each).items()}
    groups = dict[int, list[str]]()
    for turn in zip_longest(*picked.values()):
        for name, position in zip(picked, turn, strict=True):
            if position is not None:
                groups.setdefault(position, []).append(name)
    column = standing.selection.column
    cards = []
    for (position, names), line in zip(groups.items(), standing.table.take(list(groups)).to_pylist(), strict=True):
        numbers = {
            column: float(standing.values[position]),
            "rank": f"{standing.rank(position):,} of {len(standing):,}",
            **{name: line[name] for name in ("loss", "delta") if name != column},
            "answer tokens": line["n_answer_tokens"],
        }
        status, why = "kept" if standing.is_kept[position] else "left", explain(standing, position)
        cards.append(Card(line["row"], line["id"], line["source"], status, names, why, numbers))
    return cards


def _failed_cards(scores: pa.Table, n_each: int) -> list[Card]:
    """Failed rows at even distances."""
    failed = np.flatnonzero(pc.equal(scores["status"], "failed").to_numpy())
    some = failed[np.unique(np.linspace(0, max(0, len(failed) - 1), min(n_each, len(failed))).astype(int))]
    return [
        Card(line["row"], line["id"], line["source"], "failed", ["failed"], f"Failed: {line['reason']}")
        for line in scores.take(some).select(["row", "id", "source", "reason"]).to_pylist()
    ]


def _show(dataset: Rows, ref: ImageRef) -> Picture:
    try:
        return Picture(str(ref), embed_image(dataset.load_image(ref)))
    except RowError as error:
        return Picture(str(ref), None, str(error))

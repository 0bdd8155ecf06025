"""Begins a review, or goes on with one: the same run, selection, control and seed, or the file is refused."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from delta_attnmask.artifacts import RunFolder
from delta_attnmask.errors import ArtifactError, DeltaAttnMaskError, SettingsError
from delta_attnmask.reviewing.draw import draw_pairs
from delta_attnmask.reviewing.pairs import Review
from delta_attnmask.reviewing.pools import COLUMNS, Rows, choose_pools
from delta_attnmask.reviewing.store import ReviewStore
from delta_attnmask.selecting.note import read_note
from delta_attnmask.selection import Selection

N_PAIRS = 60
_PAIRS_PER_SHEET = 10
_MAX_PAIRS = 10_000


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What was asked for; None is what the review has already, or the default of a new one.

    selection: a file that `select` wrote, or its note. against: random, left, or such a file.
    """

    selection: Path | None = None
    against: str | None = None
    n_pairs: int | None = None
    n_sheets: int | None = None
    seed: int | None = None


def begin_review(run: RunFolder, out: Path, wanted: Wanted) -> ReviewStore:
    """The review in `out`, drawn and written if there is none yet.

    Raises ArtifactError, naming what differs, for the review of another run or of other choices.
    """
    store = ReviewStore.find(out)
    if store is not None:
        try:
            _refuse_others(store.review, run, wanted, out)
        except DeltaAttnMaskError:
            store.close()
            raise
        return store
    if wanted.selection is None:
        raise SettingsError("selection: expected the file that `select` wrote, as this review is new")
    return _draw_review(run, out, wanted, read_note(wanted.selection, run))


def _draw_review(run: RunFolder, out: Path, wanted: Wanted, selection: Selection) -> ReviewStore:
    against = wanted.against or "random"
    other = None if against in ("random", "left") else read_note(Path(against), run)
    n_pairs = N_PAIRS if wanted.n_pairs is None else wanted.n_pairs
    n_sheets = n_pairs // _PAIRS_PER_SHEET if wanted.n_sheets is None else wanted.n_sheets
    if not 1 <= n_pairs <= _MAX_PAIRS or not 0 <= n_sheets <= _MAX_PAIRS:
        raise SettingsError(f"pairs={n_pairs} sheets={n_sheets}: expected 1 (for sheets 0) to {_MAX_PAIRS:,}")
    scores = run.read_scores(list(COLUMNS))
    pools = choose_pools(scores, selection.rows, against, None if other is None else other.rows)
    seed = wanted.seed or 0
    pairs = draw_pairs(scores, pools, n_pairs=n_pairs, n_sheets=n_sheets, seed=seed)
    review = Review(
        manifest_sha256=run.manifest_sha256,
        selection_sha256=hash_rows(selection.rows),
        selection=describe(selection),
        against=against if other is None else describe(other),
        against_sha256="" if other is None else hash_rows(other.rows),
        seed=seed,
        n_pairs=n_pairs,
        n_sheets=n_sheets,
    )
    return ReviewStore.create(out, review, pairs)


def _refuse_others(found: Review, run: RunFolder, wanted: Wanted, out: Path) -> None:
    if found.manifest_sha256 != run.manifest_sha256:
        raise ArtifactError(f"{out} reviews another run than {run.path}; name that run, or another file")
    asked: dict[str, object] = {"pairs": wanted.n_pairs, "sheets": wanted.n_sheets, "seed": wanted.seed}
    there: dict[str, object] = {"pairs": found.n_pairs, "sheets": found.n_sheets, "seed": found.seed}
    if wanted.selection is not None:
        asked["selection"], there["selection"] = (
            hash_rows(read_note(wanted.selection, run).rows),
            found.selection_sha256,
        )
    if wanted.against in ("random", "left"):
        asked["against"], there["against"] = wanted.against, found.against
    elif wanted.against is not None:
        asked["against"], there["against"] = hash_rows(read_note(Path(wanted.against), run).rows), found.against_sha256
    different = [name for name, value in asked.items() if value is not None and value != there[name]]
    if different:
        raise ArtifactError(
            f"{out} was begun with other {', '.join(different)}; leave these out to go on, or name another file"
        )


def describe(selection: Selection) -> str:
    return f"{len(selection)} rows by {selection.column}, rule {selection.rule}"


def hash_rows(rows: Rows) -> str:
    """SHA-256 of the rows, whatever their order."""
    return sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()

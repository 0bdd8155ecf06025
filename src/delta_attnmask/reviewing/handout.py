"""The folder of a review: `review.json`, which says which side is which, and `review.html`, which judges get."""

from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import numpy as np

from delta_attnmask.errors import ArtifactError, SettingsError
from delta_attnmask.reporting.page import render_page
from delta_attnmask.reviewing.pairs import COLUMNS, Rows, choose_pools, draw_pairs
from delta_attnmask.reviewing.protocol import PROTOCOL_FILE, QUESTIONS, SIDES, Protocol, Review
from delta_attnmask.reviewing.samples import SampleBook
from delta_attnmask.runs import RunFolder
from delta_attnmask.selecting.note import read_note
from delta_attnmask.selection import Selection
from delta_attnmask.storage import write_text_atomically

_MAX_PAIRS = 1000  # a page of so many holds up to 300 MB of images


def begin_review(
    run: RunFolder, out: Path, selection: Path, *, against: str = "random", n_pairs: int = 60, seed: int = 0
) -> Protocol:
    """Draw the pairs and write them to `out`; pairs that were drawn there before by the same choices are kept.

    selection: a file that `select` wrote, or its note. against: random, left, or such a file.
    Raises ArtifactError, naming what differs, where `out` holds a review of other choices.
    """
    if not 1 <= n_pairs <= _MAX_PAIRS:
        raise SettingsError(f"pairs={n_pairs}: expected 1 to {_MAX_PAIRS:,}")
    selected = read_note(selection, run)
    other = None if against in ("random", "left") else read_note(Path(against), run)
    review = Review(
        manifest_sha256=run.manifest_sha256,
        selection_sha256=_hash_rows(selected.indices),
        selection=_describe(selected),
        against=against if other is None else _describe(other),
        against_sha256="" if other is None else _hash_rows(other.indices),
        seed=seed,
        n_pairs=n_pairs,
    )
    if (out / PROTOCOL_FILE).exists():
        return _require_same(Protocol.read(out), review, out)
    scores = run.read_scores(list(COLUMNS))
    pools = choose_pools(scores, selected.indices, against, None if other is None else other.indices)
    pairs = draw_pairs(scores, pools, n_pairs=n_pairs, seed=seed)
    protocol = Protocol(token_hex(8), review, pairs)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text_atomically(out / PROTOCOL_FILE, protocol.to_json())
    except OSError as error:
        raise ArtifactError(f"{out} can't be written: {error.strerror}") from error
    return protocol


def write_page(protocol: Protocol, book: SampleBook, out: Path) -> Path:
    """Write the page for judges into the review's folder; nothing in it depends on which side was selected."""
    page = out / "review.html"
    html = render_page(
        "judge.html",
        title="Which sample is better?",
        package="delta_attnmask.reviewing",
        styles=("judge.css",),
        scripts=("judge.js",),
        review=protocol.id,
        questions=[asdict(one) for one in QUESTIONS],
        pairs=protocol.pairs,
        sides=SIDES,
        book=book,
    )
    write_text_atomically(page, html)
    return page


def _require_same(found: Protocol, wanted: Review, out: Path) -> Protocol:
    there = asdict(found.review)
    different = [name.removeprefix("n_") for name, value in asdict(wanted).items() if value != there[name]]
    if different:
        raise ArtifactError(f"{out} holds a review with other {', '.join(different)}; name another folder")
    return found


def _describe(selection: Selection) -> str:
    return f"{len(selection)} rows by {selection.column}, rule {selection.rule}"


def _hash_rows(rows: Rows) -> str:
    """SHA-256 of the rows, whatever their order."""
    return sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()
